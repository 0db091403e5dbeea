"""What a run leaves behind: one small renderer per format, all from records alone."""
