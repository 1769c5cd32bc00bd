#!/usr/bin/env python3
"""The official openai package against `marco serve`."""

import enum
import json

import openai
import pydantic

import results
from serving import check, run_checks, two_models

HELLO = [{"role": "user", "content": "Say hello."}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "enum": ["Aix", "Bonn"]},
                "hot": {"type": "boolean"},
            },
            "required": ["city", "hot"],
            "additionalProperties": False,
        },
    },
}
PING = {
    "type": "function",
    "function": {
        "name": "ping",
        "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
    },
}


@check("openai: models, and one of them")
def models(client):
    names = [model.id for model in client.models.list()]
    assert names == ["smol", "tools"], names
    assert client.models.retrieve("tools").id == "tools"


@check("openai: chat, the same again, as a stream, and with a seed")
def chat(client):
    reply = client.chat.completions.create(
        model="smol", messages=HELLO, max_tokens=16, temperature=0
    )
    text = reply.choices[0].message.content
    assert text and reply.choices[0].message.role == "assistant"
    assert reply.usage.completion_tokens <= 16
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    again = client.chat.completions.create(
        model="smol", messages=HELLO, max_completion_tokens=16, temperature=0
    )
    assert again.choices[0].message.content == text
    assert again.usage.prompt_tokens_details.cached_tokens > 0
    stream = client.chat.completions.create(
        model="smol", messages=HELLO, max_tokens=16, temperature=0, stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == text
    assert len(chunks) > 5
    assert chunks[-2].choices[0].finish_reason == reply.choices[0].finish_reason
    assert chunks[-1].choices == [] and chunks[-1].usage == again.usage
    seeded = [
        client.chat.completions.create(
            model="smol", messages=HELLO, max_tokens=16, temperature=1, seed=seed, n=n
        )
        for seed, n in ((7, 3), (8, 1), (7, 3))
    ]
    texts = [[c.message.content for c in reply.choices] for reply in seeded]
    assert texts[0] == texts[2] and texts[1][0] == texts[0][1] and len(set(texts[0])) > 1


@check("openai: several choices interleaved in a stream")
def interleaved(client):
    texts = {}
    whole = client.chat.completions.create(
        model="smol", messages=HELLO, max_tokens=12, temperature=1, seed=3, n=3
    )
    for chunk in client.chat.completions.create(
        model="smol", messages=HELLO, max_tokens=12, temperature=1, seed=3, n=3, stream=True
    ):
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
    assert [texts[i] for i in range(3)] == [c.message.content for c in whole.choices]


@check("openai: roles, parts of content, stop, logit_bias")
def content(client):
    reply = client.chat.completions.create(
        model="smol",
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Count to nine:"}]},
            {"role": "assistant", "content": "one two"},
            {"role": "user", "content": "Go on."},
        ],
        max_tokens=20, temperature=0, user="somebody", metadata={"a": "b"}, store=False,
    )  # fmt: skip
    text = reply.choices[0].message.content
    assert text
    cut = text[len(text) // 2 :][:2]
    stopped = client.chat.completions.create(
        model="smol", messages=HELLO, max_tokens=40, temperature=0, stop=["e", "zzz"]
    )
    assert "e" not in stopped.choices[0].message.content
    assert stopped.choices[0].finish_reason == "stop" and cut
    forced = client.chat.completions.create(
        model="smol", messages=HELLO, max_tokens=3, temperature=0, logit_bias={"504": 100}
    )
    assert forced.choices[0].message.content == "TheTheThe", forced.choices[0].message.content


@check("openai: logprobs of a chat")
def logprobs(client):
    arguments = dict(
        model="smol", messages=HELLO, max_tokens=8, temperature=0, logprobs=True, top_logprobs=3
    )
    choice = client.chat.completions.create(**arguments).choices[0]
    scores = choice.logprobs.content
    assert b"".join(bytes(s.bytes) for s in scores).decode() == choice.message.content
    for score in scores:
        assert len(score.top_logprobs) == 3
        assert score.top_logprobs[0].token == score.token
        assert score.top_logprobs[0].logprob == score.logprob <= 0
    streamed = []
    for chunk in client.chat.completions.create(**arguments, stream=True):
        if chunk.choices and chunk.choices[0].logprobs:
            streamed += chunk.choices[0].logprobs.content
    assert [s.logprob for s in streamed] == [s.logprob for s in scores]


@check("openai: legacy completions: text, lists, ids, echo, logprobs, stream")
def legacy(client):
    texts = client.completions.create(
        model="smol", prompt=["The sky is", "Grass is"], max_tokens=4, temperature=0, n=2
    )
    assert [c.index for c in texts.choices] == [0, 1, 2, 3]
    assert texts.choices[0].text == texts.choices[1].text != texts.choices[2].text
    echoed = client.completions.create(
        model="smol", prompt="The sky is", max_tokens=4, temperature=0, echo=True, logprobs=2
    ).choices[0]
    assert echoed.text == "The sky is" + texts.choices[0].text
    scores = echoed.logprobs
    assert "".join(scores.tokens) == echoed.text
    assert scores.token_logprobs[0] is None and scores.token_logprobs[1] < 0
    for offset, token in zip(scores.text_offset, scores.tokens):
        assert echoed.text[offset:].startswith(token)
    for token, score, top in list(
        zip(scores.tokens, scores.token_logprobs, scores.top_logprobs)
    )[1:]:
        assert top[token] == score and 2 <= len(top) <= 3
    for chunk in (again := list(
        client.completions.create(
            model="smol", prompt="The sky is", max_tokens=4, temperature=0, stream=True
        )
    )):  # fmt: skip
        assert chunk.object == "text_completion"
    assert "".join(c.choices[0].text for c in again) == texts.choices[0].text
    nothing = client.completions.create(
        model="smol", prompt=[1, 2, 3], max_tokens=0, echo=True, logprobs=0
    )
    assert len(nothing.choices[0].logprobs.tokens) == 3
    assert nothing.usage.completion_tokens == 0


def call_of(call):
    assert call.id.startswith("call_") and call.type == "function"
    arguments = json.loads(call.function.arguments)
    if call.function.name == "get_weather":
        assert arguments["city"] in ("Aix", "Bonn") and arguments["hot"] in (True, False)
        assert len(arguments) == 2
    else:
        assert call.function.name == "ping" and arguments == {}


@check("openai: tools: required, named, none, several calls, and their results")
def tools(client):
    arguments = dict(
        model="tools", messages=HELLO, tools=[WEATHER, PING], max_tokens=300, temperature=1
    )
    most = 0
    for seed in range(6):
        reply = client.chat.completions.create(**arguments, tool_choice="required", seed=seed)
        choice = reply.choices[0]
        most = max(most, len(choice.message.tool_calls))
        for call in choice.message.tool_calls:
            call_of(call)
        assert choice.message.content is None
        assert choice.finish_reason in ("tool_calls", "length")
    single = client.chat.completions.create(
        **arguments, tool_choice={"type": "function", "function": {"name": "ping"}},
        parallel_tool_calls=False, seed=1,
    ).choices[0]  # fmt: skip
    assert [c.function.name for c in single.message.tool_calls] == ["ping"]
    assert single.finish_reason == "tool_calls"
    none = client.chat.completions.create(
        **{**arguments, "max_tokens": 5}, tool_choice="none"
    ).choices[0]
    assert none.message.tool_calls is None
    call = single.message.tool_calls[0]
    after = client.chat.completions.create(
        model="tools",
        messages=[
            *HELLO,
            single.message,
            {"role": "tool", "tool_call_id": call.id, "content": "pong"},
        ],
        tools=[PING], max_tokens=5,
    )  # fmt: skip
    assert after.usage.prompt_tokens > 0


@check("openai: tools in a stream are those of the whole reply")
def tool_stream(client):
    arguments = dict(
        model="tools", messages=HELLO, tools=[WEATHER, PING], max_tokens=300, temperature=1,
        tool_choice="required",
    )  # fmt: skip
    for seed in range(4):
        whole = client.chat.completions.create(**arguments, seed=seed).choices[0].message
        calls = {}
        finish = None
        for chunk in client.chat.completions.create(**arguments, seed=seed, stream=True):
            for delta in chunk.choices[0].delta.tool_calls or []:
                if delta.id:
                    calls[delta.index] = [delta.function.name, ""]
                calls[delta.index][1] += delta.function.arguments or ""
            finish = chunk.choices[0].finish_reason or finish
        assert [calls[i] for i in sorted(calls)] == [
            [c.function.name, c.function.arguments] for c in whole.tool_calls
        ]
        assert finish in ("tool_calls", "length")


class Mood(enum.Enum):
    good = "good"
    bad = "bad"


class Day(pydantic.BaseModel):
    mood: Mood
    sunny: bool
    hours: list[Mood] = pydantic.Field(min_length=1, max_length=3)


@check("openai: json_schema, by parse with pydantic and by hand; json_object")
def schema(client):
    for model in ("smol", "tools"):
        parsed = client.chat.completions.parse(
            model=model, messages=HELLO, response_format=Day, max_tokens=400, temperature=1, seed=2
        )
        assert isinstance(parsed.choices[0].message.parsed, Day)
        with client.chat.completions.stream(
            model=model, messages=HELLO, response_format=Day, max_tokens=400, temperature=1, seed=2
        ) as stream:
            final = stream.get_final_completion()
        assert final.choices[0].message.parsed == parsed.choices[0].message.parsed
    reply = client.chat.completions.create(
        model="smol", messages=[{"role": "user", "content": "A JSON object, please."}],
        response_format={"type": "json_object"}, max_tokens=200, temperature=0,
    )  # fmt: skip
    if reply.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(reply.choices[0].message.content), dict)


def refused(kind, part, call, **arguments):
    try:
        call(**arguments)
    except kind as error:
        assert part in error.message, error.message
        return error
    raise AssertionError(f"{arguments} was not refused")


@check("openai: errors are of the right class and name the parameter")
def errors(client):
    chat, bad = client.chat.completions.create, openai.BadRequestError
    error = refused(openai.NotFoundError, "nobody", chat, model="nobody", messages=HELLO)
    assert error.code == "model_not_found"
    error = refused(bad, "n", chat, model="smol", messages=HELLO, n=99)
    assert error.param == "n" and error.type == "invalid_request_error"
    error = refused(
        bad, "did you mean", chat, model="smol", messages=HELLO, extra_body={"max_token": 3}
    )
    assert error.param == "max_token"
    error = refused(
        bad, "maximum context length", chat, model="smol", messages=HELLO, max_tokens=99999
    )
    assert error.code == "context_length_exceeded"
    error = refused(bad, "tools", chat, model="smol", messages=HELLO, tools=[PING])
    assert error.param == "tools"
    unsupported = {"type": "string", "contentEncoding": "base64", "if": {}}
    refused(
        bad, "if", chat, model="smol", messages=HELLO,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "x", "schema": unsupported},
        },
    )  # fmt: skip
    refused(bad, "modalities", chat, model="smol", messages=HELLO, modalities=["text", "audio"])
    refused(
        bad, "vocabulary", client.completions.create, model="smol", prompt=[99999999]
    )
    refused(openai.NotFoundError, "", client.models.retrieve, model="nobody")


if __name__ == "__main__":
    with two_models() as url:
        with openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0) as client:
            run_checks(client)
    results.finish()
