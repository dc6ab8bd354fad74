"""Clustering: k-means and its seeds."""
