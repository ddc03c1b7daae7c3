"""Phase 3: the classifiers of all arms, trained side by side, and the judge.

Start with `arms.parse` (the grammar of arms), `policies.register` (adds a policy), `arm_phase.phase`,
`arm_training.ArmTraining` and `judge_phase.phase`.
"""
