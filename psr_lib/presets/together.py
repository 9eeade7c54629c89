"""Values of a preset that are right one by one and do not go together."""

import re
from collections.abc import Iterator

from psr_lib import registry
from psr_lib.methods import BORROWED_PAIRS, SRLM, USES_GOLD
from psr_lib.presets.preset import Preset
from psr_lib.records import PSRError

PROCEDURAL = "procedural"  # the source of the small laboratory, whose every step an oracle knows


def check(preset: Preset) -> None:
    """Raise PSRError that names the preset, the values and what to set them to."""
    have, need = len(preset.data.questions), preset.rounds - 1
    if have < need:
        raise PSRError(
            f"preset {preset.name}: data.questions holds {have} counts but rounds 2 to "
            f"{preset.rounds} need {need}; give one count a round"
        )
    for section in ("engine", "teacher", "reference"):  # a preset is written into every manifest
        if re.search("[@?#]", getattr(preset, section).url):
            raise PSRError(
                f"preset {preset.name}: {section}.url may hold no user, password or query; a key "
                "goes into OPENAI_API_KEY in the environment"
            )
    if wrong := next(_unknown_to_teacher(preset), None):
        key, value, way = wrong
        raise PSRError(
            f"preset {preset.name}: {key}={value} does not go with data.source="
            f"{preset.data.source}; set it to {way}"
        )
    for reason in _against_soft_labels(preset):
        raise PSRError(f"preset {preset.name}: dpo.soft_labels={preset.dpo.soft_labels}: {reason}")
    if wrong := next(_without_effect(preset), None):
        key, value, way = wrong
        raise PSRError(f"preset {preset.name}: {key}={value} has no effect here; {way}")


def check_method(preset: Preset, method: str) -> None:
    """Raise PSRError where a preset lacks what a method needs, or sets what would tell it apart
    from psrlm by more than its switch; before anything is made for it."""
    _check_needs(preset, method)
    dpo = preset.dpo
    asked = {"dpo.replay": dpo.replay or "", "dpo.soft_labels": dpo.soft_labels.replace("none", "")}
    for key, value in asked.items():
        if value and method in BORROWED_PAIRS:
            raise PSRError(f"{key}={value}: {method} makes no DPO updates, and would be more than "
                           f"one switch apart from psrlm; leave {key} out for it")  # fmt: skip
    if method == SRLM and asked["dpo.soft_labels"]:
        raise PSRError(f"dpo.soft_labels={dpo.soft_labels}: {SRLM} scores whole solutions, so no "
                       "verdicts can agree or not; set it to none")  # fmt: skip
    name = preset.teacher.judge
    if method == SRLM and preset.data.eft_from == "chain" and not registry.known("scorer", name):
        raise PSRError(f"teacher.judge={name}: it judges pairs, and {SRLM} needs who scores whole "
                       "solutions; register a scorer of that name too")  # fmt: skip


def _against_soft_labels(preset: Preset) -> Iterator[str]:
    """Settings that leave soft labels nothing to be computed from, and the way out."""
    if preset.dpo.soft_labels == "none":
        return
    if preset.dpo.loss in set(registry.KINDS["loss"].built_in) - {"sigmoid"}:
        yield (f"TRL's loss {preset.dpo.loss!r} takes none; set dpo.loss to sigmoid or to a loss "
               "of your own")  # fmt: skip
    if preset.search.scoring == "single_order":
        yield ("each pair is judged in one order alone, so there are no two to compare; take "
               "search.scoring=ordered")  # fmt: skip
    if preset.judge.early_stop:
        yield "both orders are compared, and some are not judged; set judge.early_stop=false"


def _without_effect(preset: Preset) -> Iterator[tuple[str, str, str]]:
    """Settings that were given and that nothing would read, and the way out."""
    dpo, search = preset.dpo, preset.search
    for key, name in (("min_margin", "margin"), ("length_ratio", "length")):
        if getattr(dpo, key) and name not in dpo.filters:
            way = f"add {name} to dpo.filters, or set dpo.{key}=0"
            yield f"dpo.{key}", str(getattr(dpo, key)), way
    if search.kind == "mcts" and search.tie != "rollback":
        yield "search.tie", search.tie, "a tree search rolls nothing back; set search.tie=rollback"


def _check_needs(preset: Preset, method: str) -> None:
    """Raise PSRError where a method needs of the preset what it does not have, with the way out."""
    data = preset.data
    if method in USES_GOLD and data.source != PROCEDURAL:
        raise PSRError(
            f"METHOD={method}: its oracle knows the steps of laboratory problems alone, and preset "
            f"{preset.name} has data.source={data.source}; take PRESET=tiny or METHOD=random-judge"
        )
    if method == "ift-more" and not data.ift_more:
        raise PSRError(
            f"METHOD={method}: preset {preset.name} makes no more IFT (data.ift_more=0); give the "
            f"rows of a round, such as SET=data.ift_more={data.ift}"
        )


def _unknown_to_teacher(preset: Preset) -> Iterator[tuple[str, str, str]]:
    """Settings that ask a teacher about problems that it does not know, and what else to take."""
    data, teacher, prm = preset.data, preset.teacher, preset.prm
    chain = data.eft_from == "chain"
    if data.source == PROCEDURAL:
        if teacher.ift != "oracle":
            yield "teacher.ift", teacher.ift, "oracle, since procedural problems come in steps"
        if chain and teacher.judge == "rule":
            yield "teacher.judge", teacher.judge, "oracle, which knows every step, or api"
        if chain and prm.labels == "rule":
            yield "prm.labels", prm.labels, "oracle, which knows every step"
        return
    if preset.judge.kind == "oracle":
        yield "judge.kind", "oracle", "self, since the oracle knows laboratory problems alone"
    if teacher.ift == "oracle":
        yield "teacher.ift", teacher.ift, "rule (offline) or api"
    if data.eft_from == "direct":
        yield "data.eft_from", data.eft_from, "chain, or to none for IFT and questions alone"
    if chain and teacher.judge == "oracle":
        yield "teacher.judge", teacher.judge, "rule (offline) or api"
    if chain and prm.labels == "oracle":
        yield "prm.labels", prm.labels, "rule (offline), prm800k, or the path of a file of its form"
