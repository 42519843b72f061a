"""Connected components of label maps: `components`, `component_counts`. Exported by metrics.py."""

from __future__ import annotations

import ctypes as ct
from typing import Any, NamedTuple

from . import _ffi
from ._arrays import LABELS, MASK, View
from ._call import Call, flag, integer
from .errors import InvalidValueError, NotSupportedError


class Components(NamedTuple):
    """What `components` returns."""

    labels: Any  #: int32, the map's shape: 0 in the background and where masked, else 1 .. count
    count: Any  #: int64 [B]


def components(
    map: Any,
    connectivity: int | str = 1,
    by_value: bool = False,
    background: int = 0,
    mask: Any = None,
    *,
    threads: int | None = None,
    stream: int | None = None,
) -> Components:
    """Connected components of each image, numbered in the order of their first voxels.

    The numbers are those of `skimage.measure.label` and `scipy.ndimage.label`; the defaults are SciPy's: across
    faces, and all that is not background alike. scikit-image's are ``connectivity="full", by_value=True``.

    Args:
        map, mask, threads, stream: see `segprior.metrics`; at most 2**31 - 1 voxels an image.
        connectivity: which voxels are neighbours. 1: across faces, 4 in 2-D, 6 in 3-D; "full", or the number
            of spatial axes: also across edges and corners, 8, 26. An axis of one voxel changes nothing: a
            volume of one slice has the components of its slice, and takes 2 as well as 3.
        by_value: True: voxels of different values are in different components.
        background: the value of voxels that are in no component.

    Raises:
        NotSupportedError: ``connectivity=2``, faces and edges, in a volume of more than one slice. Others: see
            `segprior.metrics`.
    """
    call = Call(map, "map", "B", LABELS, stream, threads)
    opts = _options(call, connectivity, flag("by_value", by_value), background)
    valid = None if mask is None else call.field("mask", mask, MASK)
    with call.framework.on_stream(call.stream):
        labels, labels_view = call.made("components", call.lead_given.shape, _ffi.INT32)
        count, count_view = call.made("count", (call.batch,), _ffi.INT64)
        _compute(call, opts, valid, labels_view.reshaped(call.lead.shape), count_view, None)
    call.hold(call.arrays, call.stream)
    return Components(call.framework.finish(labels), call.framework.finish(count))


def component_counts(
    map: Any,
    classes: int,
    connectivity: int | str = 1,
    background: int | None = None,
    mask: Any = None,
    *,
    threads: int | None = None,
    stream: int | None = None,
) -> Any:
    """The number of connected components of each class, int64 [B, I]: "# distinct figures" of SoftCut's paper.

    Args:
        classes: I; values outside 0 .. I - 1 are of no class.
        background: a class that is not counted; None: none.
        others: see `components`.
    """
    call = Call(map, "map", "B", LABELS, stream, threads)
    size = integer("classes", classes, 1)
    # A negative value is of no class.
    opts = _options(call, connectivity, True, -1 if background is None else background)
    valid = None if mask is None else call.field("mask", mask, MASK)
    with call.framework.on_stream(call.stream):
        counts, target = call.made("class_count", (call.batch, size), _ffi.INT64)
        _compute(call, opts, valid, None, None, target)
    call.hold(call.arrays, call.stream)
    return call.framework.finish(counts)


def _options(call: Call, connectivity: Any, by_value: bool, background: Any) -> _ffi.ComponentsOpts:
    lib, opts = _ffi.library(), _ffi.ComponentsOpts()
    lib.check(lib.components_opts_init(ct.byref(opts), ct.sizeof(opts)))
    opts.full = _is_full(connectivity, call)
    opts.by_value = by_value
    opts.background = integer("background", background, -(2**63), 63)
    return opts


def _is_full(connectivity: Any, call: Call) -> bool:
    axes = len(call.spatial)
    if isinstance(connectivity, str):
        if connectivity != "full":
            raise InvalidValueError(f"connectivity is {connectivity!r}; it must be 1, {axes} or 'full'")
        return True
    found = integer("connectivity", connectivity, 1)
    # A map [B, 1, H, W] may also be meant as volumes of one slice.
    if found > min(3, len(call.lead_given.shape) - 1):
        raise InvalidValueError(f"connectivity = {found}; it must be 1, {axes} or 'full'")
    if found == 2 and axes == 3 and 1 not in call.spatial:
        raise NotSupportedError("connectivity = 2 in 3-D, faces and edges, is not implemented; 1 and 3 are")
    return found > 1


def _compute(
    call: Call,
    opts: _ffi.ComponentsOpts,
    mask: View | None,
    labels: View | None,
    count: View | None,
    class_count: View | None,
) -> None:
    """Inside `on_stream`, where the workspace is allocated and given back."""
    lib, context, size = _ffi.library(), call.context(), ct.c_size_t()
    lead, masked, *outputs = (
        None if source is None else ct.byref(source.tensor)
        for source in (call.lead, mask, labels, count, class_count)
    )
    common = (context.handle, ct.byref(opts), lead, masked)
    lib.check(lib.components_workspace_size(*common, ct.byref(size)))
    workspace, address = call.framework.buffer(size.value)
    lib.check(lib.components(*common, *outputs, address, size.value))
    del workspace
