"""Make an SBOM and a lock with hashes of the pinned packages, and audit them.

    make sbom        # out/supply/sbom.json (CycloneDX), requirements.txt (pip --require-hashes), audit.json

Exit code 1: a package has a known vulnerability. Without a database it says so, and exits 0.
"""

import json
import subprocess
import sys
from pathlib import Path

OUT = Path("out/supply")
TOOLS = ("cyclonedx-bom==7.5.0", "pip-audit==2.10.1", "uv==0.13.9")


def tool(name: str, *arguments: str, check: bool = True) -> None:
    """Run one of the tools; what it prints is shown only if it fails."""
    done = subprocess.run(
        [OUT / "tools" / "bin" / name, *arguments], capture_output=True, text=True, check=False
    )
    if check and done.returncode:
        sys.exit(f"{name}: {done.stderr[-2000:]}")


def audited(found: Path) -> int:
    """Say what the audit found; return the exit code."""
    if not found.exists():
        print("not audited: the database of vulnerabilities cannot be reached")
        return 0
    packages = json.loads(found.read_text())["dependencies"]
    known = [one for one in packages if "skip_reason" not in one]
    bad = [f"{one['name']} {one['version']}: {v['id']}" for one in known for v in one["vulns"]]
    if bad:
        print("known vulnerabilities:", *bad, sep="\n")
    elif known:
        print(
            f"audited: {len(known)} of {len(packages)} packages, no known vulnerability; the rest is unknown"
        )
    else:
        print("not audited: the database that can be reached here knows none of the packages")
    return bool(bad)


def main() -> int:
    """Make the three files."""
    OUT.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "venv", OUT / "tools"], check=True)
    tool("pip", "install", "--quiet", *TOOLS)
    lock, sbom, found = (OUT / name for name in ("requirements.txt", "sbom.json", "audit.json"))
    tool(
        "uv",
        "pip",
        "compile",
        "--generate-hashes",
        "--no-deps",
        "constraints.txt",
        "--output-file",
        str(lock),
    )
    tool("cyclonedx-py", "requirements", "--output-reproducible", "--output-file", str(sbom), str(lock))
    found.unlink(missing_ok=True)
    tool(
        "pip-audit",
        "--disable-pip",
        "--no-deps",
        "-r",
        "constraints.txt",
        "-f",
        "json",
        "-o",
        str(found),
        check=False,
    )
    print(f"{sbom}, {lock}")
    return audited(found)


if __name__ == "__main__":
    sys.exit(main())
