"""The package's build hook: compiles the BPF programs that the agent loads.

Every ``bpf/programs/*.c`` becomes ``src/retia/node/_bpf/*.o``, by the clang inside PyPI's ``ziglang`` and the
kernel headers that it bundles: no system compiler, no kernel headers, no libbpf. The objects do not depend on
the machine's kernel. They are not in git; a wheel carries them as artifacts, an editable install leaves them
in place.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FLAGS = ("-target", "bpfel-freestanding", "-O2", "-g", "-c", "-Wall", "-Wextra", "-Werror")
OUTPUT = Path("src/retia/node/_bpf")


def kernel_headers() -> Path:
    """The folder of UAPI headers inside ``ziglang``; FileNotFoundError if the package has none."""
    spec = importlib.util.find_spec("ziglang")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the Python package ziglang is needed to compile the BPF programs")
    headers = Path(spec.origin).parent / "lib/libc/include/any-linux-any"
    if not (headers / "linux/bpf.h").is_file():
        raise FileNotFoundError(f"{headers} has no linux/bpf.h: this ziglang bundles no kernel headers")
    return headers


def compile_program(root: Path, source: Path) -> Path:
    """The object made from ``source``; RuntimeError with the compiler's words if it refuses."""
    target = root / OUTPUT / f"{source.stem}.o"
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_suffix(".o.new")
    command = [sys.executable, "-m", "ziglang", "cc", *FLAGS]
    command += [f"-ffile-prefix-map={root}=.", f"-isystem{kernel_headers()}", f"-I{root / 'bpf/lib'}"]
    result = subprocess.run(
        [*command, str(source.relative_to(root)), "-o", str(scratch)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if result.returncode != 0:
        scratch.unlink(missing_ok=True)
        raise RuntimeError(f"{source.relative_to(root)} does not compile:\n{result.stderr}")
    scratch.replace(target)
    return target


def compile_all(root: Path) -> list[Path]:
    """Compile every program below ``root``; the objects, sorted. Objects of programs that are gone go too."""
    sources = sorted((root / "bpf/programs").glob("*.c"))
    if not sources:
        raise FileNotFoundError(f"{root / 'bpf/programs'} holds no programs")
    made = [compile_program(root, source) for source in sources]
    for stale in set((root / OUTPUT).glob("*.o")) - set(made):
        stale.unlink()
    return made


class BpfHook(BuildHookInterface):  # type: ignore[type-arg,misc,unused-ignore]
    """What hatchling calls before it gathers a wheel's files."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        compile_all(Path(self.root))
        build_data.setdefault("artifacts", []).append(f"/{OUTPUT}/*.o")


if __name__ == "__main__":
    for made in compile_all(Path(__file__).resolve().parent):
        sys.stdout.write(f"{made}\n")
