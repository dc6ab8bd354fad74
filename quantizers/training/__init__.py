"""Training aids: initial codes, dead codes, schedules, regularizers and the cross entropy of codes."""
