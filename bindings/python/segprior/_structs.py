"""The constants and structs of include/segprior/*.h, as ctypes has them."""

from __future__ import annotations

import ctypes as ct
from typing import Any

CPU, CUDA = 1, 2  # segprior_device.type, the values of DLPack
FLOAT32, FLOAT64, FLOAT16, BFLOAT16 = 1, 2, 3, 4  # segprior_tensor.dtype
UINT8, INT32, INT64 = 5, 6, 7
BACKWARD_LAST, BACKWARD_UNROLLED, BACKWARD_IMPLICIT = 0, 1, 2
SOFTCUT_AUTO, SOFTCUT_CG, SOFTCUT_JACOBI = 0, 1, 2
SOFTCUT_MULTIGRID, SOFTCUT_CHEBYSHEV, SOFTCUT_DIRECT = 3, 4, 5
NORM_L2, NORM_L1 = 0, 1
LOSS_SIZE, LOSS_CROSS_ENTROPY, LOSS_FOCAL, LOSS_DICE, LOSS_FOCAL_DICE, LOSS_TERMS = 0, 1, 2, 3, 4, 5
LOSS_CAPACITY = 8
ACTIVATION_SOFTMAX, ACTIVATION_SIGMOID, ACTIVATION_NONE = 0, 1, 2
REDUCTION_SUM, REDUCTION_MEAN = 0, 1
BOUNDS_TAGS, BOUNDS_COMMON, BOUNDS_INDIVIDUAL = 0, 1, 2
PROPOSAL_EXACT, PROPOSAL_GRADIENT = 0, 1
PATH_AUTO, PATH_STREAMING, PATH_ON_CHIP, PATH_CLUSTER, PATH_PERSISTENT = 0, 1, 2, 3, 4


class Device(ct.Structure):
    _fields_ = [("type", ct.c_int32), ("index", ct.c_int32)]


class Tensor(ct.Structure):
    _fields_ = [
        ("data", ct.c_void_p),
        ("device", Device),
        ("dtype", ct.c_int32),
        ("ndim", ct.c_int32),
        ("shape", ct.POINTER(ct.c_int64)),
        ("strides", ct.POINTER(ct.c_int64)),
        ("byte_offset", ct.c_uint64),
    ]


class Info(ct.Structure):
    _fields_ = [("status", ct.c_int32), ("iterations", ct.c_int32), ("residual", ct.c_double)]


class SoftmaxOpts(ct.Structure):
    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("iterations", ct.c_int32),
        ("accelerate", ct.c_int32),
        ("tolerance", ct.c_double),
        ("check_interval", ct.c_int32),
        ("checkpoint_interval", ct.c_int32),
        ("tv", ct.c_int32),
        ("backward_mode", ct.c_int32),
        ("accumulate", ct.c_int32),
        ("reserved", ct.c_int32),
        ("eps", ct.c_double),
        ("init_eps", ct.c_double),
        ("tv_lam", ct.c_double),
        ("tv_tau", ct.c_double),
        ("spacing", ct.c_double * 3),
        ("td", ct.c_int32),
        ("td_size", ct.c_int32),
        ("td_lam", ct.c_double),
        ("td_sigma", ct.c_double),
        ("star_count", ct.c_int32),
        ("path", ct.c_int32),
        ("star_classes", ct.POINTER(ct.c_int32)),
        ("star_tau", ct.c_double),
        ("implicit_iterations", ct.c_int32),
        ("compact_saved", ct.c_int32),
        ("implicit_tolerance", ct.c_double),
    ]


def _pointers(*names: str) -> list[tuple[str, Any]]:
    return [(name, ct.POINTER(Tensor)) for name in names]


class SoftmaxInputs(ct.Structure):
    _fields_ = [
        ("struct_size", ct.c_size_t),
        *_pointers("features", "eps", "tv_lam", "tv_tau", "tv_edge"),
        *_pointers("volume", "volume_lower", "volume_upper", "init_tv_dual", "init_volume_dual"),
        *_pointers("td_lam", "td_sigma", "td_kernel", "td_edge"),
        *_pointers("star_center", "star_tau", "mask", "init_star_dual"),
    ]


class SoftmaxOutputs(ct.Structure):
    _fields_ = [
        ("struct_size", ct.c_size_t),
        *_pointers("u", "tv_dual", "volume_dual"),
        ("info", ct.c_void_p),
        *_pointers("star_dual"),
    ]


class SoftmaxGrads(ct.Structure):
    _fields_ = [
        ("struct_size", ct.c_size_t),
        *_pointers("features", "eps", "init_eps", "tv_lam", "tv_tau", "tv_edge"),
        *_pointers("volume", "volume_lower", "volume_upper"),
        *_pointers("td_lam", "td_sigma", "td_kernel", "td_edge", "star_tau", "star_center"),
        ("info", ct.c_void_p),
    ]


class SoftcutOpts(ct.Structure):
    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("solver", ct.c_int32),
        ("max_iterations", ct.c_int32),
        ("tolerance", ct.c_double),
        ("norm", ct.c_int32),
        ("absolute", ct.c_int32),
        ("batch", ct.c_int32),
        ("accumulate", ct.c_int32),
        ("backward_tolerance", ct.c_double),
        ("backward_max_iterations", ct.c_int32),
        ("path", ct.c_int32),
    ]


# The edges and diagonals of every struct of softcut.h.
_FAMILIES = [("edges", ct.POINTER(Tensor) * 3), ("diagonals", ct.POINTER(Tensor) * 2)]


class SoftcutInputs(ct.Structure):
    _fields_ = [
        ("struct_size", ct.c_size_t),
        *_pointers("scores"),
        *_FAMILIES,
        *_pointers("conductance", "init"),
    ]


class SoftcutOutputs(ct.Structure):
    _fields_ = [("struct_size", ct.c_size_t), *_pointers("x"), ("info", ct.c_void_p)]


class SoftcutGrads(ct.Structure):
    _fields_ = [
        ("struct_size", ct.c_size_t),
        *_pointers("scores"),
        *_FAMILIES,
        *_pointers("conductance"),
        ("info", ct.c_void_p),
    ]


class SoftcutCotangents(ct.Structure):
    _fields_ = [("struct_size", ct.c_size_t), *_pointers("scores"), *_FAMILIES, *_pointers("conductance")]


class SoftcutSecondGrads(ct.Structure):
    _fields_ = [
        ("struct_size", ct.c_size_t),
        *_pointers("grad_x", "scores"),
        *_FAMILIES,
        *_pointers("conductance"),
        ("info", ct.c_void_p),
    ]


class CsrOpts(ct.Structure):
    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("max_iterations", ct.c_int32),
        ("preconditioner", ct.c_int32),
        ("tolerance", ct.c_double),
    ]


class LossOpts(ct.Structure):
    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("weights", ct.c_double * LOSS_CAPACITY),
        ("activation", ct.c_int32),
        ("reduction", ct.c_int32),
        ("ignore_label", ct.c_int64),
        ("accumulate", ct.c_int32),
        ("size_per_voxel", ct.c_int32),
        ("dice_squared", ct.c_int32),
        ("dice_batch", ct.c_int32),
        ("background", ct.c_int32),
        ("reserved", ct.c_int32),
        ("dice_smooth_nr", ct.c_double),
        ("dice_smooth_dr", ct.c_double),
        ("focal_gamma", ct.c_double),
        ("focal_dice_threshold", ct.c_double),
        ("focal_dice_gamma", ct.c_double),
        ("log_offset", ct.c_double),
    ]


class LossInputs(ct.Structure):
    _fields_ = [
        ("struct_size", ct.c_size_t),
        *_pointers("scores", "labels", "target", "mask", "labelled", "class_weights"),
        *_pointers("size_lower", "size_upper", "size_groups"),
    ]


class LossOutputs(ct.Structure):
    _fields_ = [
        ("struct_size", ct.c_size_t),
        *_pointers("total", "terms", "items", "voxels"),
        ("info", ct.c_void_p),
    ]


class LossCotangents(ct.Structure):
    _fields_ = [("struct_size", ct.c_size_t), *_pointers("total", "terms", "items", "voxels")]


class LossGrads(ct.Structure):
    _fields_ = [
        ("struct_size", ct.c_size_t),
        *_pointers("scores", "class_weights", "size_lower", "size_upper"),
    ]


class ProposalOpts(ct.Structure):
    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("method", ct.c_int32),
        ("iterations", ct.c_int32),
        ("step", ct.c_double),
        ("tolerance", ct.c_double),
    ]


class ProposalInputs(ct.Structure):
    _fields_ = [("struct_size", ct.c_size_t), *_pointers("logits", "lower", "upper", "mask")]


class ProposalOutputs(ct.Structure):
    _fields_ = [
        ("struct_size", ct.c_size_t),
        *_pointers("proposal", "dual", "volume"),
        ("info", ct.c_void_p),
    ]


class ConfusionInputs(ct.Structure):
    _fields_ = [
        ("struct_size", ct.c_size_t),
        *_pointers("labels", "prediction", "scores", "mask"),
    ]


class ConfusionScoresOutputs(ct.Structure):
    _fields_ = [
        ("struct_size", ct.c_size_t),
        *_pointers("accuracy", "iou", "mean_iou", "dice", "mean_dice", "precision", "recall"),
    ]


class ComponentsOpts(ct.Structure):
    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("full", ct.c_int32),
        ("by_value", ct.c_int32),
        ("background", ct.c_int64),
    ]
