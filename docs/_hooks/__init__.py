"""What MkDocs does beside its own work when it builds the site: one idea per module, `entry` connects them."""
