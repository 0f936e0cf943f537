"""Renaming by runs of path segments: anywhere, longest first, leading runs removed, collisions rejected."""

import pytest

from flax_attn.convert.rename import rename_all


@pytest.mark.parametrize(
    ("name", "table", "expected"),
    [
        ("ChannelGate.mlp.1.bias", {"ChannelGate": "channel_gate"}, "channel_gate.mlp.1.bias"),
        ("layer1.0.ChannelGate.w", {"ChannelGate": "channel_gate"}, "layer1.0.channel_gate.w"),
        ("ChannelGates.w", {"ChannelGate": "channel_gate"}, "ChannelGates.w"),
        ("module.a.w", {"module": ""}, "a.w"),
        ("a.module.w", {"module": ""}, "a.module.w"),
        ("module.module.w", {"module": ""}, "module.w"),
        ("module.module.w", {"module.module": ""}, "w"),
        ("module._orig_mod.module.w", {"module.module": "", "_orig_mod": ""}, "w"),
        ("a._orig_mod._checkpoint_wrapped_module.w", {"_orig_mod._checkpoint_wrapped_module": ""}, "a.w"),
        ("encoder.body.w", {"encoder": "e", "encoder.body": "conv"}, "conv.w"),
        ("encoder.head.w", {"encoder": "e", "encoder.body": "conv"}, "e.head.w"),
        ("a.a.w", {"a": "b"}, "b.b.w"),
        ("a.w", {"a": "b.c"}, "b.c.w"),
        ("a.b", {"a": "b", "b": "a"}, "b.a"),
        ("module.a.w", {"module.": ""}, "a.w"),
    ],
)
def test_rename(name, table, expected):
    assert rename_all([name], table) == {name: expected}


def test_no_table_changes_nothing():
    assert rename_all(["a.b"], None) == {"a.b": "a.b"}


def test_inverse_takes_the_names_back():
    table = {"module": "", "ChannelGate": "channel_gate", "encoder.body": "conv"}
    names = ["module.ChannelGate.w", "module.encoder.body.w", "module.fc.bias"]
    ours = rename_all(names, table)
    assert list(rename_all(ours.values(), table, invert=True).values()) == names


def test_collisions_are_all_named():
    with pytest.raises(ValueError, match=r"rename must give different names") as error:
        rename_all(["a.w", "b.w", "a.v", "b.v"], {"a": "b"})
    assert "'b.w' from ['a.w', 'b.w']" in str(error.value)
    assert "'b.v' from ['a.v', 'b.v']" in str(error.value)


def test_an_empty_run_is_refused():
    with pytest.raises(ValueError, match="empty one"):
        rename_all(["a.w"], {"": "module"})


@pytest.mark.parametrize("table", [["a"], {"a": None}, {1: "a"}])
def test_tables_map_strings(table):
    with pytest.raises(ValueError, match="rename must map strings to strings"):
        rename_all(["a.w"], table)


def test_a_table_that_cannot_be_read_backwards():
    with pytest.raises(ValueError, match="different runs to be read from right to left"):
        rename_all(["x.w"], {"A": "x", "B": "x"}, invert=True)


def test_paths_and_tables_may_be_long():
    table = {f"their{i}": f"our{i}" for i in range(307)}
    theirs, ours = ".".join(table), ".".join(table.values())
    assert rename_all([theirs], table) == {theirs: ours}
    assert rename_all([ours], table, invert=True) == {ours: theirs}


def test_the_direction_is_given_by_name():
    with pytest.raises(TypeError):
        rename_all(["a.w"], {"a": "b"}, True)


@pytest.mark.parametrize("names", ["_orig_mod.module", "module._orig_mod", "_orig_mod.module."])
def test_wrappers_named_together_are_removed_in_any_order(names):
    given = ["_orig_mod.module.a.bias", "module._orig_mod.b.bias", "_orig_mod.c.bias"]
    assert list(rename_all(given, {names: ""}).values()) == ["a.bias", "b.bias", "c.bias"]
