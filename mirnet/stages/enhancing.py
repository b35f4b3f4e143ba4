"""The stage that enhances."""

from __future__ import annotations

from collections.abc import Callable

from mirnet.results import EnhanceResult
from mirnet.stages.models import CHAMPION, load_enhancer, open_model
from mirnet.stages.run import Run


def enhance(
    source: str,
    target: str,
    run: Run,
    *,
    model: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> EnhanceResult:
    """Enhance what is not done yet and account for every image.

    Args:
        source: an image, a folder or s3://bucket/prefix.
        model: a folder or ``models:/NAME@ALIAS``; the champion if none.

    Raises:
        UsageError: there is no champion yet, or the places cannot be.
        StorageError: a place cannot be reached, read or written.
        DataError: more images were bad than the params allow.
    """
    from mirnet.batch.run import ModelIdentity, run_batch

    opened = open_model(model or f"models:/{run.params.promote.name}@{CHAMPION}", run)
    result = run_batch(
        source,
        target,
        enhance=load_enhancer(opened.folder, run),
        model=ModelIdentity(
            name=opened.name,
            version=opened.version,
            run_id=opened.run_id,
            data_digest=opened.data_digest,
            git_commit=opened.git_commit,
        ),
        params=run.params.enhance,
        settings=run.settings,
        progress=progress,
    )
    result.save(run.report("enhance"))
    return result
