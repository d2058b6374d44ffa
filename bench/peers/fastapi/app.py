"""The same job as a service of one's own in Python: FastAPI, httpx, PyJWT."""

import json
import os
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import jwt
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

KEY = load_pem_public_key(Path(os.environ["BENCH_KEY"]).read_bytes())
ISSUER = os.environ["BENCH_ISSUER"]
AUDIENCE = os.environ["BENCH_AUDIENCE"]
ENGINE = os.environ["BENCH_ENGINE"]

# Of the hop, or set anew.
NOT_SENT_ON = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "authorization"}
SMALL = 64 * 1024


@asynccontextmanager
async def lifespan(app: FastAPI):
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    async with httpx.AsyncClient(base_url=ENGINE, auth=("demo", "demo"), limits=limits, timeout=30) as client:
        app.state.engine = client
        yield


app = FastAPI(lifespan=lifespan)
bearer = HTTPBearer()


async def caller(credentials: HTTPAuthorizationCredentials = Depends(bearer)) -> dict:
    try:
        return jwt.decode(
            credentials.credentials, KEY, algorithms=["RS256"], issuer=ISSUER, audience=AUDIENCE,
            options={"require": ["exp", "sub"]},
        )
    except jwt.InvalidTokenError as error:
        raise HTTPException(401, "invalid token") from error


def kept(headers) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers.items() if name.lower() not in NOT_SENT_ON]


@app.api_route("/api/{path:path}", methods=["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
async def forward(path: str, request: Request, claims: dict = Depends(caller)) -> Response:
    headers = kept(request.headers)
    content = None
    if request.method == "POST" and path.startswith("process-definition/") and path.endswith("/start"):
        body = await request.json()
        body.setdefault("variables", {})["initiator"] = {"value": claims["sub"], "type": "String"}
        content = json.dumps(body)
        headers = [(name, value) for name, value in headers if name != "content-length"]
    elif "content-length" in request.headers or "transfer-encoding" in request.headers:
        content = request.stream()
    client: httpx.AsyncClient = app.state.engine
    asked = client.build_request(
        request.method, f"/engine-rest/{path}", params=request.query_params, headers=headers, content=content
    )
    answer = await client.send(asked, stream=True)
    headers = dict(kept(answer.headers))
    if int(answer.headers.get("content-length", SMALL + 1)) <= SMALL:
        content = b"".join([chunk async for chunk in answer.aiter_raw()])
        await answer.aclose()
        return Response(content, answer.status_code, headers)

    async def rest():
        async for chunk in answer.aiter_raw():
            yield chunk
        await answer.aclose()

    return StreamingResponse(rest(), answer.status_code, headers)
