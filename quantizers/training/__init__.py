"""What happens to a quantizer around its training steps: first codes, dead codes, schedules, regularizers."""
