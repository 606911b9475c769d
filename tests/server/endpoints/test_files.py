"""`/v1/files` and lists of `/v1/batches`: uploads, pages, visibility."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from inferd.ledger.storage import data_dir
from inferd.server.endpoints import files
from inferd.server.transport import upload
from inferd.serving import file_store
from tests.server.raw_client import head, raw_client
from tests.server.transport.test_server import served_on_socket
from tests.serving.batches.customer import ENDPOINT, Customer, jsonl, line

pytestmark = pytest.mark.anyio


@pytest.fixture
def customer(provider):
    return Customer(provider)


def expiring(anchor="created_at", seconds="3600"):
    form = {"purpose": "batch", "expires_after[anchor]": anchor, "expires_after[seconds]": seconds}
    return {"files": {"file": ("a", b"x")}, "data": form}


async def test_file_is_read_back_unchanged_by_its_owner_only(provider, customer):
    content = jsonl([line("a")]) * 3 + b"\r\nno end"
    file = await customer.upload(content)
    assert (
        file.items()
        >= {
            "object": "file",
            "bytes": len(content),
            "filename": "in.jsonl",
            "purpose": "batch",
            "status": "processed",
        }.items()
    )
    path = provider.files.path(file["id"])
    assert path.read_bytes() == content
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert await customer.get(f"/v1/files/{file['id']}") == file
    response = await provider.client.get(f"/v1/files/{file['id']}/content")
    assert response.content == content
    deleted = await provider.client.delete(f"/v1/files/{file['id']}")
    assert deleted.json() == {"id": file["id"], "object": "file", "deleted": True}
    assert not path.exists()
    await customer.get(f"/v1/files/{file['id']}", 404)


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"files": {"file": ("a", b"x")}, "data": {"purpose": "fine-tune"}}, "purpose"),
        ({"files": {"file": ("a", b"x")}}, "purpose"),
        ({"files": {"file": ("a", b"")}, "data": {"purpose": "batch"}}, "file"),
        ({"files": {"other": ("a", b"x")}, "data": {"purpose": "batch"}}, "other"),
        ({"files": {"file": ("a", b"x")}, "data": {"purpose": "batch", "x": "9"}}, "x"),
        (expiring(seconds="9"), "expires_after[seconds]"),
        (expiring(seconds="2592001"), "expires_after[seconds]"),
        (expiring(seconds="soon"), "expires_after[seconds]"),
        (expiring(anchor="last_used", seconds="3600"), "expires_after[anchor]"),
        ({"files": {"file": ("a", b"x")}, "data": {"purpose": "batch", "expires_after[seconds]": "3600"}}, None),
        ({"files": {"file": ("a", b"x")}, "data": {"purpose": "b" * 2000}}, "purpose"),
        ({"json": {"purpose": "batch"}}, None),
        ({"content": b"--x\r\n", "headers": {"content-type": "multipart/form-data; boundary=x"}}, None),
        ({"content": b"nonsense", "headers": {"content-type": "multipart/form-data; boundary=x"}}, None),
    ],
)
async def test_upload_that_is_invalid_is_400_and_leaves_nothing(provider, form, param):
    response = await provider.client.post("/v1/files", **form)
    assert response.status_code == 400, response.text
    assert param is None or response.json()["error"]["param"] == param
    assert list(provider.files.folder.iterdir()) == []
    assert provider.rows("files") == []


async def test_upload_that_is_too_large_is_413_while_it_arrives(provider, customer, monkeypatch):
    monkeypatch.setattr(upload, "MAX_FILE_BYTES", 1000)
    error = await customer.upload(b"x" * 1001, 413)
    assert error["error"]["code"] == "request_too_large"
    assert list(provider.files.folder.iterdir()) == []
    await customer.upload(b"x" * 1000)


async def test_files_and_batches_of_another_team_or_project_are_404(provider, customer):
    """R9, R23"""
    from inferd.ledger import operations

    with provider.store.immediate() as conn:
        operations.create_member(conn, "project", "acme", "web", by=operations.Author("test", 1))
    file = await customer.upload(jsonl([line("a")]))
    body = {"input_file_id": file["id"], "endpoint": ENDPOINT, "completion_window": "24h"}
    batch = await customer.post("/v1/batches", json=body)
    rival = Customer(provider, provider.new_key("rival"))
    sibling = Customer(provider)
    sibling.headers = {"openai-project": "web"}
    for other in (rival, sibling):
        for path in (f"/v1/files/{file['id']}", f"/v1/files/{file['id']}/content", f"/v1/batches/{batch['id']}"):
            await other.get(path, 404)
        await other.post(f"/v1/batches/{batch['id']}/cancel", 404)
        await other.post("/v1/batches", 404, json=body)
        response = await provider.client.delete(f"/v1/files/{file['id']}", headers=other.headers)
        assert response.status_code == 404
        assert (await other.get("/v1/files"))["data"] == (await other.get("/v1/batches"))["data"] == []
        await other.get("/v1/files", 404, after=file["id"])
    assert [each["id"] for each in (await customer.get("/v1/batches"))["data"]] == [batch["id"]]


async def test_files_are_listed_in_pages(customer):
    files = [await customer.upload(b"x" * number) for number in (1, 2, 3)]
    page = await customer.get("/v1/files", limit=2, order="asc")
    assert page["has_more"]
    assert page["last_id"] == page["data"][1]["id"]
    rest = await customer.get("/v1/files", limit=2, order="asc", after=page["last_id"])
    assert not rest["has_more"]
    assert {each["id"] for each in page["data"] + rest["data"]} == {file["id"] for file in files}
    body = {"input_file_id": files[0]["id"], "endpoint": ENDPOINT, "completion_window": "24h"}
    batches = [await customer.post("/v1/batches", json=body) for _ in range(3)]
    page = await customer.get("/v1/batches", limit=2)
    rest = await customer.get("/v1/batches", limit=2, after=page["last_id"])
    assert page["has_more"] is True
    assert rest["has_more"] is False
    assert {each["id"] for each in page["data"] + rest["data"]} == {batch["id"] for batch in batches}


async def test_file_that_a_batch_reads_cannot_be_deleted(provider, customer):
    batch = await customer.create([line("a")])
    response = await provider.client.delete(f"/v1/files/{batch['input_file_id']}")
    assert response.status_code == 409


async def test_files_are_listed_by_purpose_and_order(provider, customer):
    async with provider.batching():
        batch = await customer.create([line("a")])
        batch = await customer.until(batch["id"], "completed")
    newer, older = batch["output_file_id"], batch["input_file_id"]

    async def listed(**query):
        return [file["id"] for file in (await customer.get("/v1/files", **query))["data"]]

    assert await listed() == await listed(order="desc") == [newer, older]
    assert await listed(order="asc") == [older, newer]
    assert await listed(purpose="batch") == [older]
    assert await listed(purpose="batch_output") == [newer]
    assert await listed(purpose="fine-tune") == []
    for wrong in ({"order": "up"}, {"limit": 0}, {"limit": 10_001}, {"limit": "x"}, {"before": newer}):
        error = await customer.get("/v1/files", 400, **wrong)
        assert error["error"]["param"] == next(iter(wrong))
    for wrong in ({"limit": 0}, {"limit": 101}, {"order": "asc"}):
        await customer.get("/v1/batches", 400, **wrong)
    await customer.get("/v1/batches", 404, after="batch_none")


async def test_batch_metadata_of_the_largest_size_is_read_back_unchanged(customer):
    file = await customer.upload(b"x")
    body = {"input_file_id": file["id"], "endpoint": ENDPOINT, "completion_window": "24h"}
    metadata = {f"{number:064}": "\u00e4" * 512 for number in range(16)}
    batch = await customer.post("/v1/batches", json=body | {"metadata": metadata})
    assert batch["metadata"] == metadata
    assert (await customer.get(f"/v1/batches/{batch['id']}"))["metadata"] == metadata
    assert (await customer.post("/v1/batches", json=body | {"metadata": None}))["metadata"] is None


@pytest.mark.parametrize(
    "fields",
    [
        {"endpoint": "/v1/moderations"},
        {"completion_window": "1h"},
        {"metadata": {"a" * 65: ""}},
        {"metadata": {"a": "b" * 513}},
        {"metadata": {str(number): "" for number in range(17)}},
        {"output_expires_after": 3600},
        {"output_expires_after": {"anchor": "created_at", "seconds": 3599}},
        {"x": 1},
    ],
)
async def test_batch_that_is_invalid_is_refused(provider, customer, fields):
    file = await customer.upload(b"x")
    body = {"input_file_id": file["id"], "endpoint": ENDPOINT, "completion_window": "24h"} | fields
    error = await customer.post("/v1/batches", 400, json=body)
    assert error["error"]["param"].partition(".")[0] == next(iter(fields))
    assert provider.rows("batches") == []


async def test_a_key_without_the_scope_is_refused(provider):
    reports = Customer(provider, provider.new_key("acme", scopes=("usage",)))
    await reports.get("/v1/files", 403)
    await reports.get("/v1/batches", 403)
    await reports.upload(b"x", 403)


async def test_uploads_and_new_batches_count_toward_the_rate_limit_and_reads_do_not(provider, customer):
    """R11: a tier of 100 requests a minute, and a clock that stands still."""
    for number in range(1, 50):
        file = await customer.upload(b"x")
        body = {"input_file_id": file["id"], "endpoint": ENDPOINT, "completion_window": "24h"}
        response = await provider.client.post("/v1/batches", json=body)
        assert response.headers["x-ratelimit-remaining-requests"] == str(100 - 2 * number)
        await customer.get(f"/v1/batches/{response.json()['id']}")
    await customer.upload(b"", 400)
    await customer.upload(b"x")
    error = await customer.upload(b"x", 429)
    assert error["error"]["code"] == "rate_limit_exceeded"
    await customer.post("/v1/batches", 429, json=body)
    assert len(list(provider.files.folder.iterdir())) == 50
    await customer.get("/v1/files")


async def test_audit_log_has_the_actor_of_each_creation_and_deletion(provider, customer):
    """R9"""
    file = await customer.upload(b"x")
    await provider.client.delete(f"/v1/files/{file['id']}")
    logged = [(row["action"], row["actor"]) for row in provider.rows("log")][-2:]
    key = f"key:{provider.key.split('-')[2]}"
    assert logged == [("files.create", key), ("files.delete", key)]


@asynccontextmanager
async def upload_held_open(port, provider, declared):
    """Send the headers and the first bytes of an upload, and hold it open within the block."""
    form = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\nabc'
    async with raw_client(port) as client:
        length = {} if declared is None else {"content_length": declared}
        chunked = {"transfer_encoding": "chunked"} if declared is None else {}
        sent = head(provider, "/v1/files", content_type="multipart/form-data; boundary=x", **length, **chunked)
        await client.send(sent + (b"%x\r\n%b\r\n" % (len(form), form) if declared is None else form))
        yield client


@pytest.mark.parametrize("declared", [1_000_000, None])
async def test_upload_under_way_counts_in_the_disk_and_the_quota_from_its_first_byte(
    provider, customer, monkeypatch, declared
):
    counted = 1_000_000 if declared else upload.MAX_FORM_BYTES
    monkeypatch.setattr(file_store, "free_bytes", lambda folder: data_dir.RESERVE_BYTES + counted + 1000)
    async with served_on_socket(provider) as served:
        async with upload_held_open(served.port, provider, declared):
            await provider.until(lambda: provider.files.promised_bytes("acme") == counted)
            error = await customer.upload(b"x" * 2000, 503)
            assert error["error"]["code"] == "disk_nearly_full"
            await customer.upload(b"x" * 100)
            monkeypatch.setattr("inferd.ledger.operations.batches.MAX_TEAM_BYTES", counted + 200)
            assert "would exceed" in (await customer.upload(b"x" * 100, 400))["error"]["message"]
        await provider.until(lambda: provider.files.promised_bytes("acme") == 0)
        await customer.upload(b"x" * 2000)


async def test_uploads_of_a_team_at_once_are_few_and_other_teams_have_their_own(provider, customer):
    rival = Customer(provider, provider.new_key("rival"))
    async with served_on_socket(provider) as served, AsyncExitStack() as stack:
        for _ in range(file_store.MAX_UPLOADS):
            await stack.enter_async_context(upload_held_open(served.port, provider, 1000))
        await provider.until(lambda: provider.files.promised_bytes("acme") == 1000 * file_store.MAX_UPLOADS)
        error = await customer.upload(b"x", 429)
        assert error["error"]["code"] == "too_many_uploads"
        await rival.upload(b"x")


async def test_disk_that_fills_up_ends_the_upload_that_fills_it(provider, customer, monkeypatch):
    monkeypatch.setattr(files, "SPACE_CHECK_BYTES", 2**20)
    monkeypatch.setattr(upload, "_WRITE_BYTES", 2**18)
    await customer.upload(b"x" * 2**21)
    monkeypatch.setattr(data_dir, "free_bytes", lambda folder: 0)
    error = await customer.upload(b"x" * 2**21, 503)
    assert error["error"]["code"] == "disk_nearly_full"
    assert len(list(provider.files.folder.iterdir())) == 1
