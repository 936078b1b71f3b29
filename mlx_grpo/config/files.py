"""Configuration files: found by name, overridden, checked with every mistake reported at once, and saved."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mlx_grpo.config.schema import Config
from mlx_grpo.errors import UserError, short_repr

_SECRET = re.compile("token|secret|password|api_?key", re.IGNORECASE)


def find_config(name: str) -> Path:
    """Find a config file by path, or a packaged example by its name (`configs/qwen3.yaml`, `qwen3`)."""
    path = Path(name)
    if path.is_file():
        return path
    if path.is_dir():
        raise UserError(f"{name}: is a folder; give the config file in it, such as {path / 'config.yaml'}")
    packaged = {p.stem: p for folder in _config_folders() for p in sorted(folder.glob("*.yaml"))}
    if path.stem in packaged and (path.parent.name in ("", "configs")):
        return packaged[path.stem]
    raise UserError(f"{name}: no such config file; give a path, or one of {', '.join(sorted(packaged))}")


def load_config(name: str, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, apply `key=value` and `section.key=value` overrides, and check it all.

    Raises UserError with one line for each mistake: where, key, value, remedy.
    """
    path = find_config(name)
    values = _read_yaml(path)
    for override in overrides:
        _apply_override(values, override)
    return validate(values, source=str(path))


def validate(values: dict[str, Any], source: str = "config") -> Config:
    """Make a Config of plain values; raise UserError listing every mistake in `source`."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        details = error.errors()
    lines = [line for detail in details for line in _describe(detail)]
    # Combinations are checked only when every key is sound, so check them again without the unsound ones.
    unsound = {detail["loc"][0] for detail in details if detail["loc"]}
    try:
        Config.model_validate({"model": "", **{key: values[key] for key in values.keys() - unsound}})
    except ValidationError as error:
        lines += [line for detail in error.errors() for line in _describe(detail)]
    raise UserError(*(f"{source}: {line}" for line in dict.fromkeys(lines)))


def save_config(config: Config, path: Path) -> None:
    """Write every key with its value, so that a run's config does not depend on defaults."""
    path.write_text(yaml.safe_dump(config.model_dump(), sort_keys=False), encoding="utf-8")


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested keys as overrides write them: {"lora": {"rank": 8}} is {"lora.rank": 8}."""
    pairs: dict[str, Any] = {}
    for key, value in values.items():
        pairs |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return pairs


def _config_folders() -> list[Path]:
    """Return the folders of the examples: beside the package in a checkout, inside it in an installation."""
    package = Path(__file__).resolve().parents[1]
    return [package / "configs"] if (package / "configs").is_dir() else [package.parent / "configs"]


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); save it as a UTF-8 text file") from None
    values = parse_yaml(text, str(path))
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds {type(values).__name__}, not keys and values; start with `model: ...`")
    return values


def parse_yaml(text: str, where: str) -> Any:
    """Return the value of a YAML text; raise UserError where it can't be read."""
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: 2024-99-99, or 5000 digits
        reason = " ".join(str(error).split())
        raise UserError(f"{where}: not readable as YAML ({reason[:300]}); correct it, or quote the value") from None


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"{short_repr(override)}: not an override; write key=value, such as max_steps=5")
    *sections, last = key.strip().split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            raise UserError(f"{short_repr(override)}: {section} is not a section; override {section} itself")
        values = inner
    values[last] = parse_yaml(text, f"override {short_repr(override)}")


def _describe(detail: ErrorDetails) -> list[str]:
    key = ".".join(str(part) for part in detail["loc"])
    if detail["type"] in ("extra_forbidden", "invalid_key"):
        known = _known_keys(detail["loc"][:-1])
        near = difflib.get_close_matches(str(detail["loc"][-1]), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
        if isinstance(detail["input"], str) and _SECRET.search(str(detail["loc"][-1])):
            return [
                f"{key}: unknown key, and no place for a secret; set HF_TOKEN or run `hf auth login`, and remove it"
            ]
        return [f"{key}: {short_repr(detail['input'])}: unknown key; {hint}"]
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"]).split("\n")
    if detail["type"] == "missing":
        return [f"{key}: missing; add it"]
    if detail["type"] == "string_pattern_mismatch":
        return [
            f"{key}: {short_repr(detail['input'])} is not accepted; give module:function, such as my_rewards:brevity"
        ]
    wanted = detail["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    return [f"{key}: {short_repr(detail['input'])} is not accepted; give {wanted}"]


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    section: type[BaseModel] = Config
    for part in location:
        field = section.model_fields.get(str(part))
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return []
        section = field.annotation
    return list(section.model_fields)
