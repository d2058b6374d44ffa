-- Writes the initiator. Envoy has no JSON for Lua, so this is dkjson, the one that needs no library.
package.path = "@root@/usr/share/lua/5.1/?.lua;" .. package.path
local json = require "dkjson"

function envoy_on_request(request)
  local body = request:body(true)
  local object = json.decode(body:getBytes(0, body:length()), 1, json.null)
  if type(object) ~= "table" then
    request:respond({ [":status"] = "400" }, "")
    return
  end
  local claims = request:streamInfo():dynamicMetadata():get("envoy.filters.http.jwt_authn").claims
  if type(object.variables) ~= "table" then
    object.variables = {}
  end
  object.variables.initiator = { value = claims.sub, type = "String" }
  local length = body:setBytes(json.encode(object))
  request:headers():replace("content-length", length)
end
