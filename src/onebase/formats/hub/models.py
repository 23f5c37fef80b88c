"""Fetches models by their name on the Hugging Face Hub, `hf:org/name`: only the needed files, into the Hub's own cache; never a pickle.

The client is the package huggingface_hub (`snapshot_download`). It is imported only if such a name is given. Its environment variables work
here too: HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_HUB_OFFLINE. Weights are fetched last, and the revision is noted after them, so a
snapshot with complete weights is complete.
"""

import glob
import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onebase.artifact.disk import user_error
from onebase.errors import ArtifactError, UserError
from onebase.formats.hf.files import WEIGHTS
from onebase.formats.hub.files import (
    all_parts,
    gguf_files,
    has_weights,
    leaves_the_folder,
    nothing_to_read,
    small_files,
    weight_files,
)
from onebase.formats.hub.names import HubName, parse

log = logging.getLogger(__name__)

_COMMIT = re.compile(r"[0-9a-f]{40}")


class Unreachable(UserError):
    """The Hub does not answer. The cache may have the files."""


def fetch(ref: str | Path) -> Path:
    """The folder with the files of a model (or its .gguf file) in the Hub's cache. Missing files are fetched.

    The Hub is queried each time; if it cannot be reached, the last complete copy in the cache is used, with a warning. Raises UserError for
    names that are missing or not allowed, ArtifactError for files that are unsupported or refused.
    """
    name = parse(str(ref))
    library()
    complete = _complete(name)
    try:
        return _fetched(name)
    except Unreachable as e:
        if complete is None:
            raise Unreachable(f"{name} is not complete in the cache, and {e.cause}", e.remedy) from None
        log.warning("%s; using commit %s from the cache", e.cause, _commit_of(complete))
        return complete


def origin(path: Path) -> tuple[str, str] | None:
    """Repo and commit of a path in the Hub's cache; None for other paths."""
    for folder in (path.absolute(), *path.absolute().parents):
        repo = folder.parent.parent.name
        if (
            folder.parent.name == "snapshots"
            and repo.startswith("models--")
            and _COMMIT.fullmatch(folder.name)
        ):
            return repo.removeprefix("models--").replace("--", "/"), folder.name
    return None


def _commit_of(path: Path) -> str:
    source = origin(path)
    return source[1] if source else path.name


def _fetched(name: HubName) -> Path:
    commit, names = listed(name)
    if name.file:
        small, heavy = [], all_parts(name.file)
    elif not has_weights(names):
        raise nothing_to_read(str(name), name.repo, names)
    else:
        small = small_files(names)
        heavy = weight_files(get(name, commit, small), names)
    missing = next((n for n in heavy if n not in names), None)
    if missing is not None:
        others = gguf_files(name.repo, names) if name.file else ""
        raise ArtifactError(
            f"{name}: the repo has no file {missing}", f"it has: {others}" if others else "check the name"
        )
    folder = get(name, commit, heavy)
    note(name, (small or heavy)[0])
    return folder / (name.file or "")


def _complete(name: HubName) -> Path | None:
    """The cached copy of this name if it is complete."""
    if (folder := cached(name)) is None:
        return None
    names = [p.relative_to(folder).as_posix() for p in folder.rglob("*")]
    heavy = all_parts(name.file) if name.file else weight_files(folder, names) or [WEIGHTS]
    return folder / (name.file or "") if all((folder / n).is_file() for n in heavy) else None


def listed(name: HubName) -> tuple[str, list[str]]:
    """The commit of a name, and its file names. Raises UserError, and ArtifactError for an invalid answer."""
    from huggingface_hub import HfApi

    with _client_errors(name):
        info: Any = HfApi(endpoint=_endpoint()).repo_info(
            name.repo, repo_type=name.kind, revision=name.revision, timeout=10
        )
    commit, names = str(info.sha), [str(s.rfilename) for s in info.siblings or ()]
    odd = next((n for n in names if leaves_the_folder(n)), None)
    if odd is not None or not _COMMIT.fullmatch(commit):
        raise ArtifactError(
            f"{name}: the server lists {'the file ' + repr(odd) if odd is not None else 'the commit ' + repr(commit)}",
            "nothing is fetched from it; check HF_ENDPOINT",
        )
    return commit, names


def get(name: HubName, commit: str, files: Sequence[str]) -> Path:
    """The folder of a commit in the cache, after fetching missing `files`."""
    from huggingface_hub import snapshot_download

    with _client_errors(name):
        where = snapshot_download(
            name.repo, revision=commit, allow_patterns=[glob.escape(f) for f in files], **_places(name)
        )
    missing = next((f for f in files if not (Path(where) / f).is_file()), None)
    if missing is not None:
        raise ArtifactError(f"{name}: the server does not provide {missing} of {commit}", "try again later")
    return Path(where)


def note(name: HubName, file: str) -> None:
    """Have the cache record the commit of the revision: the client does so when a file is requested by the revision's name."""
    from huggingface_hub import hf_hub_download

    if not _COMMIT.fullmatch(name.revision):
        with _client_errors(name):
            hf_hub_download(name.repo, file, revision=name.revision, **_places(name))


def cached(name: HubName) -> Path | None:
    """The folder of the cached commit of this name; some of its files may be missing."""
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(
            snapshot_download(
                name.repo, revision=name.revision, allow_patterns=[], local_files_only=True, **_places(name)
            )
        )
    except errors.LocalEntryNotFoundError:
        return None


def _places(name: HubName) -> dict[str, Any]:
    return {
        "repo_type": name.kind,
        "endpoint": _endpoint(),
        "cache_dir": _cache(),
        "etag_timeout": 10,
    }


@contextmanager
def _client_errors(name: HubName) -> Iterator[None]:
    """Converts the client's exceptions to errors with cause and remedy."""
    from huggingface_hub import errors

    # The base class of its HTTP errors, whichever HTTP client the package uses, and OSError.
    failed: Any = errors.HfHubHTTPError.__bases__
    end = (_endpoint() or "https://huggingface.co").rstrip("/")
    try:
        yield
    except errors.GatedRepoError:
        raise UserError(
            f"{name} is gated: its owner grants access",
            f"request access at {end}/{'datasets/' if name.kind == 'dataset' else ''}{name.repo}, then set HF_TOKEN (or run: hf auth login)",
        ) from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"{end} has no {name.kind} {name.repo!r}, or you have no access to it",
            "check the name; a private repo needs HF_TOKEN (or: hf auth login)",
        ) from None
    except errors.RevisionNotFoundError:
        raise UserError(
            f"hf:{name.repo} has no revision {name.revision!r}",
            "give a branch, a tag or a commit hash",
        ) from None
    except errors.EntryNotFoundError as e:
        if isinstance(e, errors.LocalEntryNotFoundError):
            raise _unreachable(e) from None
        raise ArtifactError(f"{name}: a listed file is missing: {line_of(e)}", "try again later") from None
    except errors.HfHubHTTPError as e:
        status = e.response.status_code if e.response is not None else 0
        if status in (401, 403):
            raise UserError(
                f"{end} denies access to {name} ({status})", "check HF_TOKEN (hf auth whoami)"
            ) from None
        if status >= 500 or status in (408, 429):
            raise _unreachable(e) from None
        raise ArtifactError(f"{name}: {line_of(e)}", "check the name") from None
    except failed as e:
        full = user_error(e, Path(_cache() or "the cache of the Hub")) if isinstance(e, OSError) else None
        raise full or _unreachable(e) from None
    except (ValueError, KeyError, TypeError, AttributeError) as e:  # an invalid answer
        raise ArtifactError(f"{end} does not answer like a Hub: {line_of(e)}", "check HF_ENDPOINT") from None


def _unreachable(e: BaseException) -> Unreachable:
    end = _endpoint() or "https://huggingface.co"
    return Unreachable(
        f"{end} cannot be reached or closed the connection: {line_of(e.__cause__ or e).rstrip('.')}",
        "run it again with network access (fetched files are kept), or give a folder",
    )


def line_of(e: BaseException) -> str:
    """The first line of an error's text."""
    return (str(e).strip().splitlines() or [""])[0][:200] or type(e).__name__


def _endpoint() -> str | None:
    """Read at each call: the package reads it only once, when it is imported."""
    return os.environ.get("HF_ENDPOINT") or None


def _cache() -> str | None:
    """The cache folder; None for the package's default."""
    folder = os.environ.get("HF_HUB_CACHE")
    return folder or (os.path.join(os.environ["HF_HOME"], "hub") if os.environ.get("HF_HOME") else None)


def library() -> None:
    try:
        import huggingface_hub  # noqa: F401
    except ImportError:
        raise UserError(
            "names with hf: need the package huggingface_hub", "pip install 'onebase[hub]'"
        ) from None
