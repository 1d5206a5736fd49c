-- `-- METHOD BODY_BYTES` after the address; one number at the end, in the harness's form.
function init(arguments)
   wrk.method = arguments[1]
   local length = tonumber(arguments[2])
   if length > 0 then wrk.body = string.rep("x", length) end
end

function done(summary)
   local errors = summary.errors
   print("failures " .. errors.connect + errors.read + errors.write + errors.status + errors.timeout)
end
