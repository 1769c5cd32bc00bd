#!/usr/bin/env python3
"""The official anthropic package against `marco serve`."""

import anthropic

import results
from serving import check, run_checks, two_models

HELLO = [{"role": "user", "content": "Say hello."}]
WEATHER = {
    "name": "get_weather",
    "description": "The weather of a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Aix", "Bonn"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


@check("anthropic: messages, whole and as a stream, stop sequences")
def messages(client):
    greedy = {"extra_body": {"temperature": 0}}  # the package no longer has the parameter
    arguments = dict(model="smol", messages=HELLO, max_tokens=16, system="Be kind.", **greedy)
    reply = client.messages.create(**arguments)
    assert reply.type == "message" and reply.role == "assistant" and reply.model == "smol"
    text = reply.content[0].text
    assert text and reply.stop_reason in ("end_turn", "max_tokens")
    with client.messages.stream(**arguments) as stream:
        assert "".join(stream.text_stream) == text
        final = stream.get_final_message()
    assert final.content[0].text == text and final.stop_reason == reply.stop_reason
    assert final.usage.output_tokens == reply.usage.output_tokens
    kinds = [event.type for event in client.messages.create(**arguments, stream=True)]
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop"
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 1
    stopped = client.messages.create(
        model="smol", messages=HELLO, max_tokens=40, stop_sequences=["zzz", "e"], **greedy
    )
    assert stopped.stop_reason == "stop_sequence" and stopped.stop_sequence == "e"


@check("anthropic: counting tokens, as they are counted in replies")
def count(client):
    counted = client.messages.count_tokens(model="smol", messages=HELLO).input_tokens
    usage = client.messages.create(model="smol", messages=HELLO, max_tokens=1).usage
    assert counted == usage.input_tokens + usage.cache_read_input_tokens


@check("anthropic: tools, their results, and the same in a stream")
def tools(client):
    arguments = dict(
        model="tools", messages=HELLO, tools=[WEATHER], max_tokens=300,
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
    )  # fmt: skip
    reply = client.messages.create(**arguments)
    (use,) = reply.content
    assert use.type == "tool_use" and use.name == "get_weather" and use.id.startswith("toolu_")
    assert use.input["city"] in ("Aix", "Bonn") and reply.stop_reason == "tool_use"
    with client.messages.stream(**{**arguments, "tool_choice": {"type": "tool",
                                   "name": "get_weather"}}) as stream:  # fmt: skip
        final = stream.get_final_message()
    assert all(block.input["city"] in ("Aix", "Bonn") for block in final.content)
    after = client.messages.create(
        model="tools",
        messages=[
            *HELLO,
            {"role": "assistant", "content": reply.content},
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": use.id, "content": "sunny"},
                    {"type": "text", "text": "And now?"},
                ],
            },
        ],
        tools=[WEATHER], max_tokens=5,
    )  # fmt: skip
    assert after.content


@check("anthropic: models and errors")
def errors(client):
    assert [model.id for model in client.models.list()] == ["smol", "tools"]
    try:
        client.messages.create(model="nobody", messages=HELLO, max_tokens=5)
        raise AssertionError("an unknown model was taken")
    except anthropic.NotFoundError as error:
        assert error.body["error"]["type"] == "not_found_error"
    for arguments in (
        dict(extra_body={"max_token": 3}),
        dict(extra_body={"temperature": 7}),
        dict(tools=[WEATHER]),
    ):
        try:
            client.messages.create(model="smol", messages=HELLO, max_tokens=5, **arguments)
            raise AssertionError(f"{arguments} was taken")
        except anthropic.BadRequestError as error:
            assert error.body["error"]["type"] == "invalid_request_error"


if __name__ == "__main__":
    with two_models() as url:
        with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) as client:
            run_checks(client)
    results.finish()
