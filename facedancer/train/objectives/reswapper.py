"""ReSwapper's objective (somanchiu, 2024), with the weights of its training code: distillation, and its GAN branch.

A swap must be similar, by SSIM, to the best reference there is: the target itself if target and source show one person,
the true swap if a record has it, and otherwise the swap by a teacher, which may be any export. Its projected embedding
must be near the source's, by their squared distance. With `a_lambda` there is a discriminator; then no teacher is
needed.

Changed on purpose: the identity loss has a gradient, which the original loses by converting to NumPy. The encoder sees
the swap slightly shifted, scaled and sometimes mirrored. The original's GAN branch trains like SimSwap; ours has the
non-saturating loss with lazy R1, as in FaceDancer. Images have one size, and their colors are not augmented.
"""

from dataclasses import dataclass

from facedancer.core.console import UserError
from facedancer.core.flags import flag
from facedancer.core.lazy import LazyModule
from facedancer.core.weights import find_weights
from facedancer.models.reswapper import inswapper_crop, inswapper_crop_of
from facedancer.train.objectives import adversarial
from facedancer.train.objectives.adversarial import AdversarialWeights
from facedancer.train.objectives.lite import LITE

ops = LazyModule("keras.ops")
arcface_model = LazyModule("facedancer.arcface_model")
face_shapes = LazyModule("facedancer.arcface_model.face_shapes")
augment = LazyModule("facedancer.dataset.augment")
families = LazyModule("facedancer.models.families")
folding = LazyModule("facedancer.models.folding")
autodiff = LazyModule("facedancer.train.autodiff")
losses = LazyModule("facedancer.train.losses")

# Within this tolerance, two alignments differ by less than a pixel.
_SHRINK_TOLERANCE = 0.005


@dataclass(frozen=True)
class Weights(AdversarialWeights):
    """Weights of the losses, and their settings; the defaults are the original's."""

    teacher: str | None = flag(
        None,
        "swap model to learn from: inswapper's .onnx, or any export, for faces of this run's size",
        metavar="FILE",
    )
    content_lambda: float = flag(1.0, "weight of 1 - SSIM to the true swap, or to the teacher's if none is known")
    i_lambda: float = flag(10.0, "weight of the identity loss, the square of half the cosine distance")

    def __post_init__(self):
        super().__post_init__()
        self.refuse_negative("content_lambda", "i_lambda")

    @property
    def needs(self):
        """What the data must have, and why: name -> text."""
        if self.teacher or self.a_lambda:
            return {}
        return {"truth": "there is no --teacher, and --a_lambda is 0"}


# A preset's flags that differ from the defaults; flags on the command line override them.
PRESETS = {
    "reswapper": {
        "arcface_path": "insightface_r50",
        "shrink_factor": round(inswapper_crop(1).shrink_factor, 4),
        "batch_size": 4,
        "beta_1": 0.9,
        "lr_decay": 1.0,
    },
    "lite": {
        **LITE,
        "truth_lambda": 10.0,
        "i_lambda": 4.0,
    },
}


def build(config, frozen):
    """Builds the objective of a run.

    Args:
        config: `TrainConfig`.
        frozen: `session.Frozen`, the frozen networks that any family may use.

    Raises:
        UserError: if the teacher is missing or takes other faces, or the run's faces do not contain inswapper's crop.
    """
    if config.network.inswapper_crop:
        wanted = inswapper_crop_of(config.image_size).shrink_factor
        if abs(config.shrink_factor - wanted) > _SHRINK_TOLERANCE:
            raise UserError(
                f"--shrink_factor {config.shrink_factor}: inswapper's crop lies in faces of {config.image_size} pixels"
                f" aligned with {wanted:.4f}; align them like that, or pass --inswapper_crop False"
            )
    teacher, teacher_encoder, shapes = None, None, None
    if config.weights.teacher:
        teacher, encoder_name, shapes = load_teacher(config.weights.teacher, config.image_size, config.shrink_factor)
        teacher_encoder = frozen.encoder
        if encoder_name != config.arcface_path:
            encoder = arcface_model.IdentityEncoder(encoder_name)
            teacher_encoder = encoder.build_model(config.image_size, config.shrink_factor)
    return ReSwapperObjective(frozen.encoder, config.weights, teacher, teacher_encoder, shapes)


def load_teacher(path, image_size, shrink_factor):
    """Loads a teacher.

    Args:
        path: file as for `families.load_swapper`, or a name from the registry of weights.
        image_size, shrink_factor: side in pixels and shrink factor of the faces that it must take.

    Returns:
        `(model, encoder_name, face_shapes)`: the frozen float32 model, the name of its identity encoder, and the
        `FaceShapes` of the coefficients that it takes, or None.

    Raises:
        UserError: if it is not a swapper with a source, or takes other faces.
    """
    path = find_weights(path)
    swapper = families.load_swapper(path)
    size = swapper.inputs[0].shape[1]
    card = families.card_of(path, size, swapper.inputs[1].shape[1] if len(swapper.inputs) > 1 else None)
    if card.needs == "decoder":
        raise UserError(f"--teacher {path}: it has decoders and takes no source")
    if size != image_size or abs(card.shrink_factor - shrink_factor) > _SHRINK_TOLERANCE:
        raise UserError(
            f"--teacher {path}: it takes faces of {size} pixels, aligned with shrink factor {card.shrink_factor:.4f};"
            f" this run's have {image_size} pixels and {shrink_factor:.4f}"
        )
    teacher = folding.fold(swapper, normalize=autodiff.normalize_features)
    teacher.trainable = False
    shapes = card.face_shapes and face_shapes.load_face_shapes(card.face_shapes, size, shrink_factor)
    return teacher, card.identity_encoder, shapes


class ReSwapperObjective:
    """Losses of a generator `swapped = G(target, source_embedding)`.

    Args:
        encoder: frozen model, faces (batch, S, S, 3) in [-1, 1] -> {"embedding": (batch, dim), …}.
        weights: `Weights`.
        teacher: frozen model, `[target, source_embedding]`, with the coefficients of both faces if it needs them ->
            swapped; or None.
        teacher_encoder: frozen model like `encoder`, whose embeddings the teacher takes.
        teacher_shapes: `FaceShapes` of the coefficients that the teacher takes, or None.

    Attributes:
        frozen: the frozen models that the losses use.
    """

    def __init__(self, encoder, weights, teacher=None, teacher_encoder=None, teacher_shapes=None):
        self.encoder = encoder
        self.weights = weights
        self.teacher, self.teacher_encoder, self.teacher_shapes = teacher, teacher_encoder, teacher_shapes
        others = [] if teacher is None else [teacher, *([teacher_encoder] if teacher_encoder is not encoder else [])]
        self.frozen = [encoder, *others, *(teacher_shapes.models if teacher_shapes else [])]

    def forward(self, networks, batch, training):
        """Swaps a batch: `target`, `source` (batch, S, S, 3) in [-1, 1] -> tensors by name."""
        source_embedding = self.encoder(batch["source"], training=False)["embedding"]
        swapped = networks["generator"]([batch["target"], source_embedding], training=training)
        return {"source_embedding": source_embedding, "swapped": swapped}

    def generator_losses(self, networks, batch, outputs, training):
        """Returns the weighted losses of the generator by name."""
        swapped, weights = outputs["swapped"], self.weights
        found = {}
        if weights.content_lambda:
            wanted, is_known = self._wanted(batch, outputs["source_embedding"])
            similarity = losses.structural_similarity(wanted * 0.5 + 0.5, swapped * 0.5 + 0.5)
            # Averaged over the whole batch, so that replicas may hold any share of the known pairs.
            found["content"] = weights.content_lambda * ops.mean(is_known * (1.0 - similarity))
        if weights.i_lambda:
            seen = self.encoder(augment.look_at(swapped, batch["views"]), training=False)["embedding"]
            project = networks["generator"].get_layer("projected_embedding")
            distance = losses.cosine_distance(project(seen), project(outputs["source_embedding"]))
            found["identity"] = weights.i_lambda * ops.mean(ops.square(distance / 2.0))
        if "logits" in outputs:
            adversarial = losses.adversarial_by_slope(swapped, outputs["logits"], outputs["slope"])
            found["adversarial"] = weights.a_lambda * adversarial
        return found

    def discriminator_losses(self, networks, batch, swapped, training, step):
        """Returns the weighted losses of the discriminator by name, and its logits of `swapped` (batch, 1).

        Real images are the targets, whose light and background swaps share; see `adversarial.discriminator_losses`.
        """
        return adversarial.discriminator_losses(
            networks["discriminator"], batch["target"], swapped, training, step, self.weights.r1_every
        )

    def _wanted(self, batch, source_embedding):
        """Returns the wanted swaps, (batch, S, S, 3), and whether each is known, (batch,) in {0, 1}."""
        is_known = ops.maximum(batch["has_truth"], batch["is_same"])
        has_truth = batch["has_truth"][:, None, None, None]
        wanted = has_truth * batch["truth"] + (1.0 - has_truth) * batch["target"]
        if self.teacher is None:
            return wanted, is_known
        if self.teacher_encoder is not self.encoder:
            source_embedding = self.teacher_encoder(batch["source"], training=False)["embedding"]
        inputs = face_shapes.swapper_inputs(self.teacher_shapes, batch["target"], batch["source"], source_embedding)
        taught = ops.stop_gradient(self.teacher(inputs, training=False))
        kept = is_known[:, None, None, None]
        return kept * wanted + (1.0 - kept) * taught, ops.ones_like(is_known)
