"""Files and batches: one batch to its end, one that fails, one that is cancelled."""

from __future__ import annotations

import json
from typing import Any

from tests.recording.inference_requests import chat
from tests.recording.setting import FREE, PRICED
from tests.recording.wire import Wire

FILES, BATCHES = "POST /v1/files", "POST /v1/batches"
URL = "/v1/chat/completions"
ENDED = ("completed", "failed", "expired", "cancelled")


def line(custom_id: str, **fields: Any) -> dict[str, Any]:
    """Return a line that shares its prompt with no other, so that cached tokens do not depend on the lines' order."""
    body = chat(f"Line {custom_id}", cache_salt=custom_id, **fields)
    return {"custom_id": custom_id, "method": "POST", "url": URL, "body": body}


def file_of(*lines: dict[str, Any] | str) -> dict[str, Any]:
    texts = [each if isinstance(each, str) else json.dumps(each) for each in lines]
    return {"file": ("in.jsonl", "\n".join(texts).encode(), "application/jsonl")}


def asked(file_id: str, **fields: Any) -> dict[str, Any]:
    return {"input_file_id": file_id, "endpoint": URL, "completion_window": "24h"} | fields


def files(wire: Wire) -> str:
    """Return the id of a file of three lines, one of which cannot be run."""
    purpose = {"purpose": "batch"}
    three = file_of(line("a"), line("b", model=FREE, metadata={"a": "b"}, verbosity="low"), line("c", n=17))
    file_id = wire.call("file", FILES, "acme", files=three, data=purpose).json["id"]
    expiring = purpose | {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    other = wire.call("file that expires", FILES, "acme", files=file_of("{}"), data=expiring).json["id"]
    wire.call("file in a project", FILES, "bound", files=file_of("{}"), data=purpose)
    wire.call("file without a purpose", FILES, "acme", files=three)
    wire.call("file of another purpose", FILES, "acme", files=three, data={"purpose": "fine-tune"})
    wire.call("file that is empty", FILES, "acme", files={"file": ("in.jsonl", b"")}, data=purpose)
    wire.call("file that is no form", FILES, "acme", {"purpose": "batch"})
    wire.call("files", "GET /v1/files", "acme")
    wire.call("files of a page", "GET /v1/files?limit=1&order=asc&purpose=batch", "acme")
    wire.call("files of a wrong page", "GET /v1/files?limit=0", "acme")
    wire.call("file shown", f"GET /v1/files/{file_id}", "acme")
    wire.call("file of another team", f"GET /v1/files/{file_id}", "poor")
    wire.call("file read", f"GET /v1/files/{other}/content", "acme")
    wire.call("file deleted", f"DELETE /v1/files/{other}", "acme")
    wire.call("file deleted before", f"DELETE /v1/files/{other}", "acme")
    return str(file_id)


def batches(wire: Wire) -> None:
    file_id = files(wire)
    batch_id = wire.call("batch", BATCHES, "acme", asked(file_id, metadata={"job": "1"})).json["id"]
    shown = f"GET /v1/batches/{batch_id}"
    done = until_ended(wire, batch_id, "acme")
    wire.call("batch completed", shown, "acme")
    wire.call("batch output", f"GET /v1/files/{done['output_file_id']}/content", "acme")
    wire.call("batch errors", f"GET /v1/files/{done['error_file_id']}/content", "acme")
    wire.call("batch output shown", f"GET /v1/files/{done['output_file_id']}", "acme")
    wire.call("batch cancelled too late", f"POST /v1/batches/{batch_id}/cancel", "acme")
    wire.call("batch of another team", shown, "poor")
    wire.call("batches", "GET /v1/batches?limit=5", "acme")
    wire.call("batch of no file", BATCHES, "acme", asked("file-nowhere"))
    wire.call("batch for another endpoint", BATCHES, "acme", asked(file_id, endpoint="/v1/moderations"))
    wire.call("batch for another window", BATCHES, "acme", asked(file_id, completion_window="1h"))
    wire.call("batch with an unknown field", BATCHES, "acme", asked(file_id, priority=1))


def failed_batches(wire: Wire) -> None:
    """A batch without a line that can be run."""
    lines = (line("a", stream=True), line("b", model="no/model"), "no JSON")
    file_id = wire.send(FILES, "acme", files=file_of(*lines), data={"purpose": "batch"}).json["id"]
    batch_id = wire.send(BATCHES, "acme", asked(file_id)).json["id"]
    until_ended(wire, batch_id, "acme")
    wire.call("batch failed", f"GET /v1/batches/{batch_id}", "acme")


def until_ended(wire: Wire, batch_id: str, key: str) -> dict[str, Any]:
    """Return the batch, once it has ended."""
    batch: dict[str, Any] = wire.until(f"GET /v1/batches/{batch_id}", key, lambda batch: batch["status"] in ENDED)
    return batch


def waiting_batch(wire: Wire) -> str:
    """Return the id of a batch that waits for credit."""
    file = file_of(line("a"), line("b"))
    file_id = wire.send(FILES, "poor", files=file, data={"purpose": "batch"}).json["id"]
    batch_id = wire.send(BATCHES, "poor", asked(file_id)).json["id"]
    wire.until(f"GET /v1/batches/{batch_id}", "poor", lambda batch: batch["status"] == "in_progress")
    return str(batch_id)


def cancelled_batches(wire: Wire) -> None:
    batch_id = waiting_batch(wire)
    shown = f"GET /v1/batches/{batch_id}"
    wire.call("batch waits", shown, "poor")
    wire.call("batch cancelled", f"POST /v1/batches/{batch_id}/cancel", "poor")
    ended = until_ended(wire, batch_id, "poor")
    wire.call("batch was cancelled", shown, "poor")
    wire.call("batch lines not run", f"GET /v1/files/{ended['error_file_id']}/content", "poor")


def reports(wire: Wire) -> None:
    """Request models, keys, usage and costs."""
    wire.call("models", "GET /v1/models", "acme")
    wire.call("models of a page", "GET /v1/models?limit=1", "acme")
    wire.call("models after", f"GET /v1/models?limit=2&after_id={FREE}", "acme")
    wire.call("models of a bound key", "GET /v1/models", "bound")
    wire.call("models without a key", "GET /v1/models", None)
    wire.call("model", f"GET /v1/models/{PRICED}", "acme")
    wire.call("model unknown", "GET /v1/models/no/model", "acme")
    wire.call("key", "GET /v1/key", "acme")
    wire.call("key bound", "GET /v1/key", "bound")
    wire.call("key of an admin", "GET /v1/key", "admin")
    usage, costs = "GET /v1/organization/usage/completions", "GET /v1/organization/costs"
    grouped = "&group_by=model&group_by=project_id&group_by=user_id&group_by=batch&group_by=service_tier"
    day = wire.day_s
    wire.call("usage", f"{usage}?start_time={day}", "acme")
    wire.call("usage grouped", f"{usage}?start_time={day}{grouped}", "acme")
    wire.call("usage by key", f"{usage}?start_time={day}&group_by=api_key_id&models={PRICED}", "acme")
    wire.call("usage of all teams", f"{usage}?start_time={day}&group_by=project_id", "admin")
    wire.call("usage of a page", f"{usage}?start_time={day - 86_400}&limit=1", "acme")
    wire.call("usage without a start", usage, "acme")
    wire.call("usage by an unknown group", f"{usage}?start_time={day}&group_by=colour", "acme")
    wire.call("usage with an unknown parameter", f"{usage}?start_time={day}&colour=1", "acme")
    wire.call("costs", f"{costs}?start_time={day}", "acme")
    wire.call("costs by line", f"{costs}?start_time={day}&group_by=line_item&group_by=project_id", "acme")
    wire.call("costs by the hour", f"{costs}?start_time={day}&bucket_width=1h", "acme")
    wire.call("costs of an admin", f"{costs}?start_time={day}&group_by=project_id", "admin")
