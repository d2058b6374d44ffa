-- What nginx cannot do by itself: verify the token, write the initiator.

local base64 = require "ngx.base64"
local cjson = require "cjson.safe"
local digest = require "openssl.digest"
local lrucache = require "resty.lrucache"
local pkey = require "openssl.pkey"

local gateway = {}
local settings, key, cache

function gateway.set_up(given)
  settings = given
  local file = assert(io.open(given.key, "rb"))
  key = assert(pkey.new(file:read("*a"), "PEM"))
  file:close()
  if given.cache > 0 then
    cache = assert(lrucache.new(given.cache))
  end
end

local function names_audience(claim)
  if type(claim) ~= "table" then
    return claim == settings.audience
  end
  for _, name in ipairs(claim) do
    if name == settings.audience then
      return true
    end
  end
  return false
end

local function part(text)
  local bytes = text and base64.decode_base64url(text)
  local object = bytes and cjson.decode(bytes)
  return type(object) == "table" and object or nil
end

-- The claims of a good token.
local function checked(token)
  local dot = token:find(".", 1, true)
  local second = dot and token:find(".", dot + 1, true)
  if not second then
    return nil
  end
  local header = part(token:sub(1, dot - 1))
  local signature = base64.decode_base64url(token:sub(second + 1))
  if not header or header.alg ~= "RS256" or not signature then
    return nil
  end
  local ok, good = pcall(key.verify, key, signature, digest.new("sha256"):update(token:sub(1, second - 1)))
  if not ok or not good then
    return nil
  end
  local claims = part(token:sub(dot + 1, second - 1))
  if not claims or claims.iss ~= settings.issuer or not names_audience(claims.aud) then
    return nil
  end
  return claims
end

function gateway.verify()
  local header = ngx.var.http_authorization
  local token = header and header:match("^[Bb]earer ([^ ]+)$")
  local claims = token and cache and cache:get(token)
  if token and not claims then
    claims = checked(token)
    if claims and cache then
      cache:set(token, claims)
    end
  end
  local now = ngx.time()
  if not claims or type(claims.exp) ~= "number" or claims.exp < now or (claims.nbf or 0) > now then
    ngx.header["WWW-Authenticate"] = "Bearer"
    return ngx.exit(ngx.HTTP_UNAUTHORIZED)
  end
  return claims
end

function gateway.write_initiator(claims)
  ngx.req.read_body()
  local text = ngx.req.get_body_data()
  local body = text and cjson.decode(text)
  if type(body) ~= "table" then
    return ngx.exit(ngx.HTTP_BAD_REQUEST)
  end
  if type(body.variables) ~= "table" then
    body.variables = {}
  end
  body.variables.initiator = { value = claims.sub, type = "String" }
  ngx.req.set_body_data(cjson.encode(body))
end

return gateway
