"""An honest peer: FastAPI, SQLAlchemy and pydantic over the same rows, as a careful team would write it.

The document is kept as JSONB, validated on the way in and out; sort and filters use the same indexed columns.
"""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import asyncpg
from fastapi import FastAPI, Query
from pydantic import BaseModel, ConfigDict
from sqlalchemy import DateTime, Integer, String, func, select
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase): ...


class PeerWorkload(Base):
    __tablename__ = "peer_workload"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String)
    type: Mapped[str] = mapped_column(String)
    phase: Mapped[str] = mapped_column(String)
    project_name: Mapped[str] = mapped_column(String)
    allocated_gpu: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    deleted_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    document: Mapped[dict[str, Any]] = mapped_column(JSONB)


class ConditionModel(BaseModel):
    type: str
    status: str
    message: str | None = None
    reason: str | None = None
    lastTransitionTime: datetime | None = None  # noqa: N815


class WorkloadModel(BaseModel):
    model_config = ConfigDict(extra="allow")
    id: UUID
    name: str
    type: str
    phase: str
    createdAt: datetime  # noqa: N815
    conditions: list[ConditionModel]
    images: list[str]
    environmentVariables: dict[str, str]  # noqa: N815


class WorkloadsModel(BaseModel):
    next: int | None = None
    workloads: list[WorkloadModel]


class CountModel(BaseModel):
    count: int


def build_peer(database_url: str) -> FastAPI:
    async def connect() -> asyncpg.Connection:
        return await asyncpg.connect(database_url)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, pool_size=10)
    session = async_sessionmaker(engine, expire_on_commit=False)
    app = FastAPI()

    @app.get("/workloads", response_model=WorkloadsModel)
    async def workloads(
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        offset: Annotated[int, Query(ge=0)] = 0,
    ) -> WorkloadsModel:
        async with session() as s:
            rows = await s.scalars(
                select(PeerWorkload)
                .where(PeerWorkload.deleted_at.is_(None))
                .order_by(PeerWorkload.created_at, PeerWorkload.id)
                .limit(limit + 1)
                .offset(offset)
            )
            fetched = list(rows)
        page = [WorkloadModel.model_validate(row.document) for row in fetched[:limit]]
        return WorkloadsModel(workloads=page, next=offset + limit if len(fetched) > limit else None)

    @app.get("/workloads/count", response_model=CountModel)
    async def count(type: str, phase: str, min_gpu: int) -> CountModel:  # noqa: A002
        async with session() as s:
            counted = await s.scalar(
                select(func.count())
                .select_from(PeerWorkload)
                .where(
                    PeerWorkload.deleted_at.is_(None),
                    PeerWorkload.type == type,
                    PeerWorkload.phase == phase,
                    PeerWorkload.allocated_gpu >= min_gpu,
                )
            )
        return CountModel(count=counted or 0)

    @app.post("/workloads", response_model=CountModel)
    async def upsert(models: list[WorkloadModel]) -> CountModel:
        async with session() as s, s.begin():
            await _upsert(s, models)
        return CountModel(count=len(models))

    return app


async def _upsert(session: AsyncSession, models: list[WorkloadModel]) -> None:
    values = [
        {
            "id": model.id,
            "name": model.name,
            "type": model.type,
            "phase": model.phase,
            "project_name": "p",
            "allocated_gpu": 0,
            "created_at": model.createdAt,
            "deleted_at": None,
            "document": model.model_dump(mode="json"),
        }
        for model in models
    ]
    statement = insert(PeerWorkload).values(values)
    replaced = {name: statement.excluded[name] for name in values[0] if name != "id"}
    await session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=replaced))


COPY_ROWS = """
CREATE TABLE peer_workload AS
SELECT id, name::text, type::text, phase::text, project_name::text,
       (allocated_gpu / 1000000)::int AS allocated_gpu, created_at, deleted_at,
       (convert_from(document, 'UTF8') || '}')::jsonb AS document
FROM workload;
ALTER TABLE peer_workload ADD PRIMARY KEY (id);
CREATE INDEX ON peer_workload (created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX ON peer_workload (phase, id) WHERE deleted_at IS NULL;
CREATE INDEX ON peer_workload (name, id) WHERE deleted_at IS NULL;
CREATE INDEX ON peer_workload (project_name, id) WHERE deleted_at IS NULL;
"""
