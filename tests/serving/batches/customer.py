"""A customer of batches, over HTTP."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.serving.provider import PATIENCE_S, Provider, chat_body

ENDPOINT = "/v1/chat/completions"


def line(custom_id: str, content: str = "hello", **fields: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": chat_body(content, **fields)}


def jsonl(lines: list[Any]) -> bytes:
    return b"".join((each if isinstance(each, bytes) else json.dumps(each).encode()) + b"\n" for each in lines)


class Customer:
    """Of team acme, or of who has that key."""

    def __init__(self, provider: Provider, key: str | None = None) -> None:
        self.provider = provider
        self.headers = {} if key is None else {"authorization": f"Bearer {key}"}

    async def get(self, path: str, status: int = 200, **query: Any) -> Any:
        response = await self.provider.client.get(path, params=query, headers=self.headers)
        assert response.status_code == status, response.text
        return response.json()

    async def post(self, path: str, status: int = 200, **options: Any) -> Any:
        response = await self.provider.client.post(path, headers=self.headers, **options)
        assert response.status_code == status, response.text
        return response.json()

    async def upload(self, content: bytes, status: int = 200, purpose: str = "batch") -> Any:
        form = {"files": {"file": ("in.jsonl", content)}, "data": {"purpose": purpose}}
        return await self.post("/v1/files", status, **form)

    async def create(self, lines: list[Any], **fields: Any) -> Any:
        """A batch of these lines."""
        file = await self.upload(jsonl(lines))
        body = {"input_file_id": file["id"], "endpoint": ENDPOINT, "completion_window": "24h", **fields}
        return await self.post("/v1/batches", json=body)

    async def until(self, batch_id: str, *statuses: str) -> Any:
        async with asyncio.timeout(PATIENCE_S):
            while (batch := await self.get(f"/v1/batches/{batch_id}"))["status"] not in statuses:
                await asyncio.sleep(0.01)
        return batch

    async def lines_of(self, file_id: str | None) -> dict[str, Any]:
        """custom_id -> line of an output or error file; each is there once."""
        if file_id is None:
            return {}
        response = await self.provider.client.get(f"/v1/files/{file_id}/content", headers=self.headers)
        assert response.status_code == 200
        lines = [json.loads(text) for text in response.text.splitlines()]
        found = {each["custom_id"]: each for each in lines}
        assert len(found) == len(lines)
        return found
