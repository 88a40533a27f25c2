"""What the configuration says of privacy, as the mechanisms take it."""

from __future__ import annotations

from torch import nn

from fedflair.config.train_config import TrainConfig
from fedflair.models.groups import numbered, trained_runs
from fedflair.privacy.contract import LocalPrivacyOptions, Origin, ParameterGroups, PersonImages, PrivacyOptions


def privacy_options(
    config: TrainConfig,
    images: tuple[float, int] | None = None,
    groups: ParameterGroups | None = None,
    origin: Origin | None = None,
) -> PrivacyOptions:
    """The central mechanism's options, under their configuration names.

    groups: as of ``parameter_groups``.
    images: (mean, most) training images of a person, which say what artificial users cost people.
    origin: the model that the run starts from.
    """
    artificial = config.data.dataset == "flair_iid"
    return PrivacyOptions(
        mechanism=config.central_privacy.central_privacy_mechanism,
        epsilon=config.central_privacy.central_epsilon,
        delta=config.central_privacy.central_delta,
        clipping_bound=config.central_privacy.central_privacy_clipping_bound,
        order=config.central_privacy.central_order,
        population=config.central_privacy.population,
        noise_cohort_size=config.central_privacy.noise_cohort_size,
        min_separation=config.central_privacy.min_separation,
        num_buffers=config.central_privacy.num_buffers,
        accountant=config.central_privacy.accountant,
        allow_large_delta=config.central_privacy.allow_large_delta,
        noise_from_seed=config.run.noise_from_seed,
        artificial_users=artificial,
        person_images=PersonImages(*images) if artificial and images is not None else None,
        origin=origin,
        adaptive_clipping=config.central_privacy.adaptive_clipping,
        adaptive_clipping_quantile=config.central_privacy.adaptive_clipping_quantile,
        adaptive_clipping_learning_rate=config.central_privacy.adaptive_clipping_learning_rate,
        adaptive_clipping_noise_std=config.central_privacy.adaptive_clipping_noise_std,
        clipping_groups=config.central_privacy.clipping_groups,
        groups=groups,
        private_metrics=config.central_privacy.private_metrics,
        private_metrics_loss_bound=config.central_privacy.private_metrics_loss_bound,
        private_metrics_images_bound=config.central_privacy.private_metrics_images_bound,
    )


def local_privacy_options(config: TrainConfig, origin: Origin | None = None) -> LocalPrivacyOptions:
    """The local mechanism's options, under their configuration names."""
    return LocalPrivacyOptions(
        mechanism=config.local_privacy.local_privacy_mechanism,
        epsilon=config.local_privacy.local_epsilon,
        delta=config.local_privacy.local_delta,
        clipping_bound=config.local_privacy.local_privacy_clipping_bound,
        order=config.local_privacy.local_order,
        allow_large_delta=config.central_privacy.allow_large_delta,
        noise_from_seed=config.run.noise_from_seed,
        origin=origin,
    )


def parameter_groups(config: TrainConfig, module: nn.Module) -> ParameterGroups | None:
    """The groups of the network's trained parameters that are clipped apart; None where all are clipped together."""
    central = config.central_privacy
    if central.clipping_groups == "none" or not central.adaptive_clipping:
        return None
    return ParameterGroups(*numbered(trained_runs(module, central.clipping_groups)))
