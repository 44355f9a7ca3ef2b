-- Sends GET requests, each with the next of the given headers, and prints what came of it as one line of JSON.
-- Arguments: path, a file with a line for each request (its headers as "name=value", joined by tabs), and how many of
-- them to skip at first.

local requests, turn = {}, 0

function init(args)
  for line in io.lines(args[2]) do
    local headers = {}
    for pair in line:gmatch("[^\t]+") do
      local name, value = pair:match("^(.-)=(.*)$")
      headers[name] = value
    end
    requests[#requests + 1] = wrk.format("GET", args[1], headers)
  end
  turn = tonumber(args[3])
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
