"""job.yaml: a job as it was read, for a person to correct, and then given in place of the description."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError, model_validator
from pydantic_core import ErrorDetails

from mlx_grpo.errors import UserError, short_repr
from mlx_grpo.tasks.shortlist.text import normalise

_HEAD = """\
# The job as it was read from {source}. Correct it, then give this file in place of the description:
#   mlx-grpo rank --jd {name} ...      mlx-grpo data build --jd {name} ...
"""
_NOTES = {
    "title": "",
    "min_years": "# Whole years of experience; max_years is null where there is no upper bound.\n",
    "required": '# What a candidate must have. "Tableau or Power BI" is one requirement that either of them meets.\n',
    "nice": "# What is a plus.\n",
    "text": "# The whole description, which only the full form of the prompts shows.\n",
}


class JobFile(BaseModel):
    """The keys of a job.yaml."""

    model_config = ConfigDict(extra="forbid")

    title: StrictStr = Field(min_length=1)
    min_years: StrictInt = Field(default=0, ge=0, le=50)
    max_years: StrictInt | None = Field(default=None, ge=0, le=50)
    required: list[StrictStr] = Field(min_length=1)
    nice: list[StrictStr] = []
    text: StrictStr = ""

    @model_validator(mode="after")
    def _check_years(self) -> JobFile:
        if self.max_years is not None and self.max_years < self.min_years:
            raise ValueError(f"max_years {self.max_years} is below min_years {self.min_years}; raise it or write null")
        return self


def is_job_file(path: Path) -> bool:
    """Return True for a name that ends in .yaml or .yml."""
    return path.suffix.lower() in (".yaml", ".yml")


def read_job_file(path: Path) -> JobFile:
    """Read a job.yaml; raise UserError with one line for each mistake."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); save it as a UTF-8 text file") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: 2024-99-99, or 5000 digits
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not readable as YAML ({reason[:300]}); correct it, or quote the value") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds no keys of a job; `mlx-grpo data job FILE --out job.yaml` writes such a file")
    try:
        return JobFile.model_validate(values)
    except ValidationError as error:
        details = error.errors()
    raise UserError(*(f"{path}: {_describe(detail)}" for detail in details))


def write_job_file(
    path: Path,
    *,
    source: str,
    title: str | None,
    years: tuple[int, int | None],
    required: Sequence[str],
    nice: Sequence[str],
    text: str,
    doubts: Sequence[str],
) -> None:
    """Write a commented job.yaml; raise UserError where it exists already or can't be written."""
    if not is_job_file(path):
        raise UserError(f"--out: {path}: give a name that ends in .yaml, by which `--jd` knows such a file")
    blocks = [
        ("title", {"title": title or ""}),
        ("min_years", {"min_years": years[0], "max_years": years[1]}),
        ("required", {"required": list(required)}),
        ("nice", {"nice": list(nice)}),
        ("text", {"text": text}),
    ]
    body = [
        _NOTES[name] + yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=110) for name, values in blocks
    ]
    head = _HEAD.format(source=source, name=path.name) + "".join(f"# Doubtful: {normalise(line)}\n" for line in doubts)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8", errors="backslashreplace") as file:
            file.write("\n".join([head, *body]))
    except FileExistsError:
        raise UserError(f"--out: {path} exists already, perhaps corrected; give another name or remove it") from None
    except OSError as error:
        raise UserError(f"--out: {path} can't be written ({error.strerror}); choose another place") from None


def _describe(detail: ErrorDetails) -> str:
    key = "".join(f"[{part}]" if isinstance(part, int) else part for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"{key}: unknown key; known keys: {', '.join(JobFile.model_fields)}"
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    if detail["type"] == "missing":
        return f"{key}: missing; add it"
    if detail["type"] in ("string_too_short", "too_short"):
        return f"{key}: is empty; fill it in"
    wanted = detail["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    return f"{key}: {short_repr(detail['input'])} is not accepted; give {wanted}"
