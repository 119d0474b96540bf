"""Who may read a model, and what it is called."""

from __future__ import annotations

from fakes.hub_server import TOKEN, Fault
from faults.scene import MODEL, Scene
from faults.table import row


@row("The model is gated and nobody is logged in", quick=True)
def gated(scene: Scene) -> None:
    scene.model(gated="manual")
    scene.serve()
    scene.ask()
    scene.failed("gated_model")


@row("The model is gated and the token's account has no access; then it is granted, and the person resumes")
def gated_then_granted(scene: Scene) -> None:
    scene.model(gated="manual")
    scene.serve(HF_TOKEN=TOKEN)
    scene.ask()
    scene.failed("gated_model")
    scene.hub.grant(MODEL)
    scene.resume("Access is granted; the person resumes.")
    scene.completed()


@row("The model is private and nobody is logged in")
def private(scene: Scene) -> None:
    scene.model(private=True)
    scene.serve()
    scene.ask()
    scene.failed("model_not_found")


@row("There is no such model")
def unknown(scene: Scene) -> None:
    scene.model()
    scene.serve()
    scene.model_id = "mlx-community/No-Such-Model"
    scene.hub.add_model("mlx-community/Other", {"a": "b"})
    scene.ask()
    assert scene.told(status="failed").data["error_code"] == "model_not_found"
    scene.outcome.end = "failed: `model_not_found`"


@row("There is no such revision")
def unknown_revision(scene: Scene) -> None:
    scene.model()
    scene.serve()
    scene.ask(revision="no-such-branch")
    scene.failed("revision_not_found")


@row("The token is wrong or has expired")
def wrong_token(scene: Scene) -> None:
    scene.model()
    scene.serve(HF_TOKEN="hf_wrong")
    scene.ask()
    scene.failed("token_rejected")


@row("The token is revoked while the bytes of a private model come, and its addresses expire", again=None)
def token_revoked(scene: Scene) -> None:
    scene.model(8 << 20, private=True)
    slow = scene.slow(4e6)
    scene.serve(HF_TOKEN=TOKEN)
    scene.ask()
    scene.sent(2 << 20)
    revoked = scene.hub.fault(Fault.status(401), where="resolve")
    scene.hub.expire_urls()
    scene.hub.network_down("cdn")
    scene.hub.network_up("cdn")
    slow.clear()
    scene.struck(revoked)
    scene.failed("token_rejected")
    revoked.clear()
    scene.resume("With a new token the person resumes.")
    scene.completed()


@row("The model was renamed: the Hub redirects to its new name")
def renamed(scene: Scene) -> None:
    scene.model(model_id="mlx-community/Old-Name")
    scene.hub.rename("mlx-community/Old-Name", "mlx-community/New-Name")
    scene.serve()
    scene.ask()
    scene.model_id = "mlx-community/Old-Name"
    scene.until(status="completed")
    blobs = {path.name for path in (scene.repo_dir / "blobs").iterdir()}
    files = scene.hub.repo("mlx-community/New-Name").head.files.values()
    assert blobs == {file.etag for file in files}, blobs
    scene.outcome.end = "completed, under the name that was asked for"
