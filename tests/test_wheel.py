"""The wheel works from another folder, in an environment that has neither this checkout nor torch."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
USE = """
import importlib.util
import jax.numpy as jnp, numpy as np
from flax import nnx
import flax_attn
import flax_attn.testing
from flax_attn.networks.patch import NetCBAM

assert "site-packages" in flax_attn.__file__, flax_attn.__file__
for absent in ("torch", "torch_ref", "train", "tests", "einops"):
    assert importlib.util.find_spec(absent) is None, absent

network = NetCBAM(no_spatial=False, rngs=nnx.Rngs(0))
network.eval()
x = jnp.ones((2, 32, 40, 3))
p, attended = network(x)
flax_attn.to_torch(network, "weights.safetensors")
other = flax_attn.from_torch(NetCBAM(no_spatial=False, rngs=nnx.Rngs(1)), "weights.safetensors")
other.eval()
np.testing.assert_array_equal(p, other(x)[0])

open("weights.pt", "wb").close()
for use in (
    lambda: flax_attn.from_torch(network, "weights.pt"),
    lambda: flax_attn.testing.compare(network, None),
):
    try:
        use()
    except ImportError as error:
        assert "flax_attn[torch]" in str(error), error
    else:
        raise AssertionError("expected an ImportError that names flax_attn[torch]")
"""


def run(*command, cwd):
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_wheel_works_on_its_own(tmp_path):
    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    packages = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert packages == {"flax_attn"}
    assert "flax_attn/py.typed" in names

    venv.create(tmp_path / "env")
    python = tmp_path / "env" / "bin" / "python"
    install = ["-m", "pip", "--python", python, "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    run(sys.executable, *install, "-c", ROOT / "constraints.txt", wheel, cwd=tmp_path)
    run(python, "-I", "-c", USE, cwd=tmp_path)  # isolated: PYTHONPATH may name the checkout
