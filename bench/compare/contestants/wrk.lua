-- `-- METHOD BODY_BYTES` after the address; numbers at the end, in the harness's form.
function init(arguments)
   wrk.method = arguments[1]
   local length = tonumber(arguments[2])
   if length > 0 then wrk.body = string.rep("x", length) end
end

function done(summary)
   local failures = 0
   for _, kind in ipairs({"connect", "read", "write", "status", "timeout"}) do
      local count = summary.errors[kind]
      failures = failures + count
      if count > 0 then print("lost-wrk-" .. kind .. " " .. count) end
   end
   print("requests " .. summary.requests)
   print("failures " .. failures)
end
