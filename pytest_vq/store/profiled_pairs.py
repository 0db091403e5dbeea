"""What a process that only profiles leaves: ``profiles.jsonl``, a line a pair, appended as pairs finish."""

from __future__ import annotations

from pathlib import Path

from pytest_vq.errors import ResultsError
from pytest_vq.files import append_line
from pytest_vq.schema.outcome import Profile

PROFILES = "profiles.jsonl"


def append_profile(directory: Path, profile: Profile) -> None:
    """Append ``profile`` to those in ``directory``. Raises ResultsError where it does not fit whole."""
    path = directory / PROFILES
    try:
        append_line(path, profile.to_json().encode() + b"\n")
    except OSError as error:
        raise ResultsError(f"cannot write {path}: {error.strerror or error}") from error


def read_profiles(directory: Path) -> dict[str, Profile]:
    """Pair -> its profile, for those in ``directory``; the end of a line that a process did not finish is passed over.

    Raises ResultsError for a file that is not one of profiles.
    """
    import msgspec

    path = directory / PROFILES
    try:
        data = path.read_bytes() if path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        profiles = [Profile.from_json(line) for line in whole.splitlines()]
    except OSError as error:
        raise ResultsError(f"cannot read profiles from {path}: {error.strerror or error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ResultsError(f"{path} is not a {PROFILES} of pytest-vq: {error}") from error
    return {profile.id: profile for profile in profiles}
