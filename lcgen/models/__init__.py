"""The Flax modules and the losses of the paper. This wing knows no data set, no phase and no file.

Start with `vae.VAE`, `actor_critic.Actor`, `actor_critic.Critic`, `classifier.Classifier`, `classifier.Judge` and the
equations in `losses.weighted_elbo`, `losses.constraint_loss` and `losses.distance_penalty`.
"""
