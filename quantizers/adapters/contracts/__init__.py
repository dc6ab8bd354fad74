"""One file for each quantizer that adapters stand in for."""
