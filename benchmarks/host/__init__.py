"""The host's time for calls and training steps on a GPU, measured without one."""
