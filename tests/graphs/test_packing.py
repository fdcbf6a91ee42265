"""Values as JSON and buffers: what comes back is what went in."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from test_explanations import assert_same_extras

from skgnnx.graphs.packing import Packer, unpack

leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=[]), max_size=5)
    | npst.arrays(
        st.sampled_from(["f4", "f8", "i8", "?", "U3", "c8", "M8[s]"]), npst.array_shapes(min_dims=0, min_side=0)
    )
    | st.sampled_from([np.float32(0.1), np.int64(3), np.bool_(True), np.float64(0.3)])
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.sampled_from(["array", "tuple", "a", "shape"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(value=values)
def test_what_is_packed_comes_back(value):
    packer = Packer()
    tree = json.loads(json.dumps(packer.pack(value, "value")))
    restored = unpack(tree, packer.buffers())
    assert_same_extras(restored, value)


def test_object_arrays_and_tensors():
    packer = Packer()
    ragged = np.empty((2, 1), dtype=object)
    ragged[:, 0] = [np.arange(2), "b"]
    tree = json.loads(json.dumps(packer.pack([ragged, torch.ones(2, requires_grad=True)], "value")))
    objects, tensor = unpack(tree, packer.buffers())
    assert objects.shape == (2, 1)
    assert objects[0, 0].tolist() == [0, 1]
    assert objects[1, 0] == "b"
    np.testing.assert_array_equal(tensor, np.ones(2, dtype=np.float32))


def test_arrays_share_few_buffers():
    packer = Packer()
    packer.pack([np.arange(i) for i in range(100)], "value")
    assert len(packer.buffers()) == 1


@pytest.mark.parametrize("value", [object(), {1: 2}, {3}, b"bytes", np.zeros(1, dtype=[("a", "f4")]), [1, [lambda: 0]]])
def test_anything_else_is_refused_by_name(value):
    with pytest.raises(TypeError, match=r"^extras\['a'\] must hold"):
        Packer().pack(value, "extras['a']")
