-- For bench/: what is told of how long requests took
--
-- (times) -> p50, p99 and p99.9 in milliseconds
-- times: seconds that each request took; it is sorted
return function (times)
	table.sort(times);
	local function percentile(share)
		return times[math.ceil(#times * share)] * 1000;
	end
	return percentile(0.5), percentile(0.99), percentile(0.999);
end
