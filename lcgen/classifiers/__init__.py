"""Phase 3: arms, policies, transforms, their joint training, and the judge."""
