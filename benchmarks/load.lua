-- Sends GET requests, each with the next of the given headers, and prints what came of it as one line of JSON.
-- Arguments: path, then per request its headers as "name=value" joined by tabs. One set goes out as fast as wrk can.

local requests, turn = {}, 0

function init(args)
  for i = 2, math.max(2, #args) do
    local headers = {}
    for pair in (args[i] or ""):gmatch("[^\t]+") do
      local name, value = pair:match("^(.-)=(.*)$")
      headers[name] = value
    end
    requests[#requests + 1] = wrk.format("GET", args[1], headers)
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    'RESULT {"requests": %d, "duration_us": %d, "refused": %d, "failed": %d, "p50_us": %d, "p99_us": %d, "max_us": %d}\n',
    summary.requests, summary.duration, e.status, e.connect + e.read + e.write + e.timeout,
    latency:percentile(50), latency:percentile(99), latency.max))
end
