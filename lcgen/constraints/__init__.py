"""Phase 2: the game, the energy, the algebra of constraints, samplers, edits and rules."""
