"""Explanations of outputs at positions of a text: labels of tokens, masked tokens, spans, and what is generated.

One text a pass, all its outputs from it.
"""

import time
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pnpx.attributors import left_as_found
from pnpx.text.choice import chosen
from pnpx.text.generation import continuation, shifted
from pnpx.text.granularity import units
from pnpx.text.record import TextExplanation
from pnpx.text.scoring import Job, score
from pnpx.text.targets import Outputs
from pnpx.text.tasks import Task
from pnpx.text.unpadded import Reading

if TYPE_CHECKING:
    from pnpx.text.explainer import TextExplainer


def explained(
    explain: "TextExplainer", reading: Reading, target: Any, task: Task, generation: dict[str, Any]
) -> TextExplanation:
    """The explanation of one text.

    Args:
        explain: how.
        reading: the text, or the prompt.
        target: for generation what is generated, or None; else which outputs are explained, see `chosen`.
        task: what the model does.
        generation: arguments of the model's ``generate``.
    """
    start = time.perf_counter()
    if task.kind in ("causal", "encoder_decoder"):
        job = _generating(explain, reading, target, task, generation)
    else:
        said = run(explain, Job([reading], [[]], [set()], task.embeddings))
        outputs = chosen(explain.tokenizer, explain.labels, reading, target, task, said)
        held = explain.held(reading)
        if task.kind == "masked":  # what is in the place of a mask is asked: without the mask there is no question
            masks = (reading.ids == explain.tokenizer.mask_token_id).nonzero()[:, 0].tolist()
            held = held | (set(masks) & set(outputs.asked.tolist()))
        job = Job([reading], [units(reading.encoded, explain.granularity)], [held], task.embeddings, outputs=outputs)
    if job.outputs is None:
        raise RuntimeError("a job of outputs at positions must have them")
    scored = score(explain, job, torch.arange(len(job.outputs.names))[None])
    encoded = reading.encoded if job.encoded is None else job.encoded
    return TextExplanation(
        texts=encoded.joined,
        units=tuple(job.units[0]),
        scores=scored.scores[0],
        targets=tuple(job.outputs.indices.tolist()),
        target_names=job.outputs.names,
        probabilities=_probabilities(explain, job),
        generation=job.causal is not None,
        granularity=explain.granularity if isinstance(explain.granularity, str) else "spans",
        aggregation=explain.aggregated,
        explainer=scored.explainer,
        seconds=time.perf_counter() - start,
        diagnostics={name: value[0].cpu() for name, value in scored.diagnostics.items()},
    )


def _generating(explain: "TextExplainer", reading: Reading, target: Any, task: Task, generation: dict[str, Any]) -> Job:
    """What is to be explained of a continuation: each of its tokens, by the prompt and the tokens before it."""
    limit = explain.limit
    following, against = continuation(explain.model, explain.tokenizer, reading, target, task, generation, limit)
    count, length = len(following), len(reading)
    if task.kind == "causal" and limit is not None and length + count > limit:
        raise ValueError(
            f"the prompt has {length} tokens and what follows {count}, but the model reads {limit} together; shorten "
            "one of them"
        )
    encoded = reading.encoded.then(following.encoded)
    names = tuple(unit.text for unit in units(following.encoded, "all_tokens"))
    positions, along, read = torch.arange(count), {}, reading
    if task.kind == "causal":
        positions = positions + length - 1
        read = Reading(torch.cat([reading.ids, following.ids]), encoded, _continued(reading.extras, count))
    else:
        along["decoder_input_ids"] = shifted(explain.model, following.ids)[None]
    return Job(
        [read],
        [units(encoded, explain.granularity)],
        [explain.held(reading) | set(range(length, length + count))],
        task.embeddings,
        along,
        Outputs(task.kind, positions, following.ids, names, against),
        torch.ones(count, length + count).tril(length - 1).bool(),
        encoded,
    )


def _continued(extras: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """What a prompt's tokens have beside their ids, for so many tokens more."""
    found = {}
    for name, value in extras.items():
        behind = value[-1:].expand(count)
        if name == "position_ids":
            behind = behind + torch.arange(1, count + 1)
        found[name] = torch.cat([value, behind])
    return found


def run(explain: "TextExplainer", job: Job) -> Any:
    """What the model returns."""
    device = next(explain.model.parameters()).device
    with left_as_found(explain.model), torch.no_grad():
        return explain.model(**{name: value.to(device) for name, value in job.batch(explain.pad).items()})


def _probabilities(explain: "TextExplainer", job: Job) -> tuple[float, ...]:
    outputs = job.outputs
    if outputs is None:
        return ()
    plain = Outputs(outputs.kind, outputs.positions, outputs.indices, outputs.names, None, outputs.parts)
    return tuple(plain.read(run(explain, job), "softmax")[0].float().tolist())
