"""Phase 2: constraints on latents, the game and the energy that learn them, their algebra, samplers, edits and rules.

Start with `game_phase.phase`, `energy_phase.phase`, `learning.Learner`, `algebra.Constraint`, `samplers.register`,
`samplers.edit`, `rule_spec.parse`, `mixture.Mixture` and `mixture_phase.learn`.
"""
