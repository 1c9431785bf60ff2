-- The HAProxy action lua.dpopgate asks dpopgate about a request. What the gateway refuses gets its answer, unchanged;
-- what it lets through goes on with the gateway's identity headers and without the client's credentials.

local gate = "http://127.0.0.1:8080/_dpopgate/verify/haproxy"

-- The headers of identity.preset: x-auth. A client can send none of them, in no spelling that an application might take
-- for one of them.
local told = {
    "x-auth-subject", "x-auth-scope", "x-auth-client", "x-auth-token-id", "x-auth-token-type", "x-auth-expires",
    "x-auth-assertion", "x-request-id",
}

-- Fields of the gateway's answer that the client gets beside the application's.
local kept = {
    "dpop-nonce", "x-request-id", "ratelimit", "ratelimit-policy", "access-control-allow-origin", "access-control-expose-headers",
}

-- Of the request, not told to the gateway: its framing, and where it came from, which is said here.
local own = {
    ["host"] = true, ["content-length"] = true, ["transfer-encoding"] = true, ["connection"] = true, ["upgrade"] = true,
    ["te"] = true, ["trailer"] = true, ["expect"] = true, ["forwarded"] = true, ["x-request-id"] = true,
    ["x-forwarded-for"] = true, ["x-forwarded-host"] = true, ["x-forwarded-method"] = true, ["x-forwarded-uri"] = true,
}

-- Of the gateway's answer, not for the client.
local hops = { ["content-length"] = true, ["transfer-encoding"] = true, ["connection"] = true, ["keep-alive"] = true, ["date"] = true }

-- plain is how CGI and its like read a header name.
local function plain(name)
    return (name:lower():gsub("[^%w]", "-"))
end

local removed = { ["authorization"] = true, ["dpop"] = true }
for _, name in ipairs(told) do
    removed[name] = true
end

local function ask(txn)
    local headers = {}
    for name, values in pairs(txn.http:req_get_headers()) do
        if not own[name:lower()] then
            headers[name] = {}
            for i = 0, #values do
                table.insert(headers[name], values[i])
            end
        end
    end
    headers["x-forwarded-method"] = { txn.f:method() }
    headers["x-forwarded-uri"] = { txn.f:pathq() }
    headers["x-forwarded-host"] = { txn.f:req_hdr("host") }
    headers["x-forwarded-for"] = { txn.f:src() }
    return core.httpclient():get({ url = gate, headers = headers, timeout = 5000 })
end

-- refuse gives the client the gateway's answer, or 503 when there is none.
local function refuse(txn, answer)
    if not answer or not answer.status or answer.status < 200 then
        return txn:done(txn:reply({ status = 503, headers = { ["retry-after"] = { "1" }, ["cache-control"] = { "no-store" } } }))
    end
    local reply = txn:reply({ status = answer.status, reason = answer.reason })
    for name, values in pairs(answer.headers) do
        if not hops[name:lower()] then
            for i = 0, #values do
                reply:add_header(name, values[i])
            end
        end
    end
    reply:set_body(answer.body or "")
    txn:done(reply)
end

core.register_action("dpopgate", { "http-req" }, function(txn)
    local answer = ask(txn)
    if not answer or answer.status ~= 200 then
        return refuse(txn, answer)
    end
    for name in pairs(txn.http:req_get_headers()) do
        if removed[plain(name)] then
            txn.http:req_del_header(name)
        end
    end
    for _, name in ipairs(told) do
        if answer.headers[name] then
            txn.http:req_set_header(name, answer.headers[name][0])
        end
    end
    for _, name in ipairs(kept) do
        if answer.headers[name] then
            txn:set_var("txn." .. name:gsub("-", "_"), answer.headers[name][0])
        end
    end
    txn:set_var("txn.dpopgate", "passed")
end)
