"""Origins of public benchmarks: GitHub, the Hugging Face Hub, and ZIP archives; one file at a time."""

from __future__ import annotations

import errno
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, Protocol
from urllib.parse import quote, urlsplit

from layeralign._util.retry import LATER, Retry, retry, seconds
from layeralign.errors import LayeralignError

if TYPE_CHECKING:
    import httpx

GITHUB = "https://raw.githubusercontent.com"
S3 = "https://s3.amazonaws.com"
ATTEMPTS = 6
BUDGET = 300.0
"""Seconds per file after which no new attempt starts."""
SLOWEST = 20.0
"""Longest pause between attempts, in seconds; a server's `Retry-After` has priority."""
TIMEOUT = 30.0
"""Seconds without data after which a connection times out."""
_CHUNK = 2**20


class Missing(LayeralignError):
    """The origin has no such file."""


class Origin(Protocol):
    """A public source of a benchmark's files, in the layout of the cache folder."""

    def url(self, revision: str | None, path: str) -> str:
        """The file's address."""

    def fetch(self, revision: str | None, path: str, draft: Path, most: int) -> None:
        """Download the file to `draft`.

        Args:
            revision: The commit; None if the origin has no revisions.
            path: The file's path in the origin.
            draft: Where to write the file.
            most: Largest size in bytes.

        Raises:
            Missing: The origin has no such file.
            LayeralignError: The download fails, or the file is larger than `most` bytes.
        """


_ENTRY, _MOST_ENTRIES = b"PK\x01\x02", 1000
"""Start of an entry in a ZIP archive's list, and most of them: Python makes an object of each."""


@dataclass(frozen=True)
class GitHub:
    """A GitHub repository, `owner/name`."""

    repo: str

    def url(self, revision: str | None, path: str) -> str:
        """The raw file's address."""
        return f"{GITHUB}/{self.repo}/{revision}/{quote(path)}"

    def fetch(self, revision: str | None, path: str, draft: Path, most: int) -> None:
        """See `Origin.fetch`."""
        _download(self.url(revision, path), draft, most)


@dataclass(frozen=True)
class Archives:
    """ZIP archives in a folder of Amazon S3; `archives` maps each file to its archive."""

    folder: str
    archives: Mapping[str, str]

    def url(self, revision: str | None, path: str) -> str:
        """The archive's address; there are no revisions."""
        return f"{S3}/{self.folder}/{self.archives[path]}"

    def fetch(self, revision: str | None, path: str, draft: Path, most: int) -> None:
        """See `Origin.fetch`."""
        url = self.url(revision, path)
        packed = draft.with_name(f"{draft.name}.zip")
        try:
            _download(url, packed, most)
            if packed.read_bytes().count(_ENTRY) > _MOST_ENTRIES:
                raise zipfile.BadZipFile
            with zipfile.ZipFile(packed) as archive, archive.open(path) as inside, draft.open("wb") as stream:
                while part := inside.read(_CHUNK):
                    _write(part, stream, url, most)
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            KeyError,
            NotImplementedError,
            RuntimeError,
            OSError,
        ) as error:
            if isinstance(error, OSError) and error.errno != errno.EINVAL:  # that of a place before the start
                raise
            raise LayeralignError(
                f"{url}: is not a ZIP archive that contains {path}; try again later"
            ) from error
        finally:
            packed.unlink(missing_ok=True)


@dataclass(frozen=True)
class Hub:
    """A Hugging Face dataset, `owner/name`; the hub client reads `HF_TOKEN` and `HF_ENDPOINT`."""

    repo: str

    def url(self, revision: str | None, path: str) -> str:
        """The file's address on the hub."""
        from huggingface_hub import hf_hub_url

        return hf_hub_url(self.repo, path, repo_type="dataset", revision=revision)

    def fetch(self, revision: str | None, path: str, draft: Path, most: int) -> None:
        """See `Origin.fetch`."""
        url = self.url(revision, path)
        _patiently(url, lambda: self._once(url, revision, path, draft, most))

    def _once(self, url: str, revision: str | None, path: str, draft: Path, most: int) -> None:
        from huggingface_hub import get_hf_file_metadata, hf_hub_download

        try:
            found = get_hf_file_metadata(url)
            if revision is not None and found.commit_hash != revision:
                raise LayeralignError(
                    f"{url}: the server returned revision {found.commit_hash}; expected {revision}"
                )
            if found.size is None or found.size > most:
                raise LayeralignError(f"{url}: has {found.size} bytes; the limit is {most:,}")
            with TemporaryDirectory(prefix=f"{draft.name}.", dir=draft.parent) as work, _no_bars():
                got = hf_hub_download(self.repo, path, repo_type="dataset", revision=revision, local_dir=work)
                Path(got).replace(draft)
        except LayeralignError:
            raise
        except Exception as error:  # the hub client raises many types
            raise self._told(error, url) from error

    def _told(self, error: Exception, url: str) -> Exception:
        """Convert a hub client's error to one for users, or to `Retry` if it may be temporary."""
        from huggingface_hub import errors

        page = f"https://huggingface.co/datasets/{self.repo}"
        means = {
            errors.GatedRepoError: f"access is gated; accept the terms at {page} and set HF_TOKEN",
            errors.RevisionNotFoundError: "the dataset has no such revision",
            errors.RepositoryNotFoundError: f"the dataset does not exist or needs HF_TOKEN; see {page}",
            errors.OfflineModeIsEnabled: "HF_HUB_OFFLINE disables downloads; unset it",
        }  # GatedRepoError is a subclass of RepositoryNotFoundError, so it comes first
        if isinstance(error, errors.RemoteEntryNotFoundError):
            return Missing(f"{url}: the dataset has no such file")
        for kind, says in means.items():
            if isinstance(error, kind):
                return LayeralignError(f"{url}: {says}")
        if isinstance(error, errors.HfHubHTTPError):
            status = error.response.status_code
            says = f"the hub answered {status}"
            return Retry(says) if status in LATER else LayeralignError(f"{url}: {says}; see {page}")
        return Retry(f"the download failed ({type(error).__name__})")


@contextmanager
def _no_bars() -> Iterator[None]:
    """Disable the hub client's progress bars, which would garble ours."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    before = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            enable_progress_bars()


def _download(url: str, draft: Path, most: int) -> None:
    _patiently(url, lambda: _once(url, draft, most))


def _patiently(url: str, once: Callable[[], None]) -> None:
    try:
        retry(once, attempts=ATTEMPTS, budget=BUDGET, slowest=SLOWEST)
    except Retry as given_up:
        raise LayeralignError(
            f"{url}: {given_up.why}, {ATTEMPTS} times or for {BUDGET:.0f} s; run the command again to resume"
        ) from given_up.__cause__


def _once(url: str, draft: Path, most: int) -> None:
    import httpx

    try:
        with _browser(urlsplit(url).scheme).stream("GET", url) as answer, draft.open("wb") as stream:
            _check(answer, url, most)
            for part in answer.iter_bytes():
                _write(part, stream, url, most)
    except httpx.TimeoutException:
        raise Retry("timed out") from None
    except httpx.RequestError as error:
        raise Retry(f"the connection failed ({type(error).__name__})") from None


@cache
def _browser(scheme: str) -> httpx.Client:
    """One shared client per scheme, which refuses redirects to another scheme."""
    import httpx  # its import takes longer than most commands

    def insist(request: httpx.Request) -> None:
        if request.url.scheme != scheme:
            raise LayeralignError(
                f"{request.url}: refused, a redirect leads to this address, which does not use {scheme}"
            )

    return httpx.Client(
        headers={"Accept-Encoding": "identity"}, timeout=TIMEOUT, follow_redirects=True, max_redirects=5,
        event_hooks={"request": [insist]},
    )  # fmt: skip


def _check(answer: httpx.Response, url: str, most: int) -> None:
    status = answer.status_code
    if status in LATER:
        raise Retry(f"the server answered {status}", seconds(answer.headers.get("Retry-After")))
    if status in (404, 410):
        raise Missing(f"{url}: not found (the server answered {status})")
    if status != 200:
        raise LayeralignError(f"{url}: cannot be downloaded (the server answered {status})")
    length = answer.headers.get("Content-Length")
    if length is None and "chunked" not in answer.headers.get("Transfer-Encoding", ""):
        raise LayeralignError(
            f"{url}: the server sent no Content-Length, so a partial download would go unseen"
        )
    if length is not None and int(length) > most:
        raise LayeralignError(f"{url}: has {int(length):,} bytes; the limit is {most:,}")


def _write(part: bytes, stream: IO[bytes], url: str, most: int) -> None:
    if stream.tell() + len(part) > most:
        raise LayeralignError(f"{url}: has more than {most:,} bytes, the limit")
    stream.write(part)
