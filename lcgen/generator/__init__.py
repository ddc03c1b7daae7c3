"""Phase 1: the generator, trained on images alone, and its statistics.

Start with `base.Generator` (the protocol), `registration.register` (a fork adds one by it), `vae_phase.VAE`, `pca.PCA`,
`trained.learn` and `frozen.Frozen` (the input of later phases).
"""
