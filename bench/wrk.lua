-- What wrk sends, and its results as one line of JSON.
-- Mode "small": heads of 13 fields as a browser sends them, path and cookie new in every request.
-- Mode "head SIZE": heads of about so many bytes, path new in every request.
-- Mode "download": plain GET. Mode "upload SIZE": POST of so many bytes.

local before, between, after
local counter = 0

--: Fields that a large head is made of.
local FIELDS = 40

local function browser_head(host)
    before = "GET /articles/"
    between = " HTTP/1.1\r\n" .. table.concat({
        "Host: " .. host,
        'sec-ch-ua: "Chromium";v="126", "Google Chrome";v="126", "Not-A.Brand";v="8"',
        "sec-ch-ua-mobile: ?0",
        'sec-ch-ua-platform: "Linux"',
        "Upgrade-Insecure-Requests: 1",
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
            .. "Chrome/126.0.0.0 Safari/537.36",
        "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
        "Sec-Fetch-Site: same-origin",
        "Sec-Fetch-Mode: navigate",
        "Referer: http://" .. host .. "/articles/",
        "Accept-Encoding: gzip, deflate, br",
        "Accept-Language: en-GB,en;q=0.9,de;q=0.8",
        "Cookie: theme=dark; consent=1; session=",
    }, "\r\n")
    after = "\r\n\r\n"
end

-- The path and the last field vary; the rest is filled up to `size` with at most FIELDS fields.
local function head_of(size, host)
    before = "GET /articles/"
    local rest = size - #before - #"1/comments?page=" - 8 - #" HTTP/1.1\r\nHost: \r\n\r\n" - #host
        - #"Cookie: session=\r\n" - 16
    local fields = math.max(1, math.min(FIELDS, math.floor(rest / 64)))
    local length = math.floor(rest / fields) - #"X-Field-10: \r\n"
    local lines = {}
    for number = 1, fields do
        lines[number] = string.format("X-Field-%02d: ", number) .. string.rep("v", math.max(1, length))
    end
    between = " HTTP/1.1\r\nHost: " .. host .. "\r\n" .. table.concat(lines, "\r\n")
        .. "\r\nCookie: session="
    after = "\r\n\r\n"
end

local function small()
    counter = counter + 1
    local id = string.format("%08x", (counter * 2654435761) % 4294967296)
    return before .. counter .. "/comments?page=" .. id .. between .. id .. id .. after
end

function init(args)
    local mode, size = args[1], tonumber(args[2])
    if mode == "small" or mode == "head" then
        if mode == "small" then
            browser_head(wrk.headers["Host"])
        else
            head_of(size, wrk.headers["Host"])
        end
        request = small
        return
    end
    if mode == "upload" then
        wrk.method = "POST"
        wrk.body = string.rep("0123456789abcdef", size / 16)
        wrk.headers["Content-Type"] = "application/octet-stream"
    end
    local fixed = wrk.format()
    request = function() return fixed end
end

function done(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format(
        'result {"requests": %d, "seconds": %.6f, "bytes": %.0f, "p50_ms": %.4f, "p99_ms": %.4f, '
            .. '"errors": {"connect": %d, "read": %d, "write": %d, "timeout": %d, "status": %d}}\n',
        summary.requests, summary.duration / 1e6, summary.bytes,
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
        errors.connect, errors.read, errors.write, errors.timeout, errors.status))
end
