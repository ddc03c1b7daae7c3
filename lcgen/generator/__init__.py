"""Phase 1: the generator, its step and phase, its statistics and its calibration."""
