-- Random material for the specs. SPEC_SEED repeats a run whose seed was printed.

local seed = tonumber(os.getenv("SPEC_SEED")) or os.time();

local random = {};

-- Prints the seed that whoever wants the same run again has to give.
function random.announce(name)
	print(("%s: SPEC_SEED=%d"):format(name, seed));
end

-- To be called before each test, so that it does the same whether it runs alone or among others
function random.restart()
	math.randomseed(seed);
end

local function eight_words()
	local next_word = math.random;
	return string.pack("i8i8i8i8i8i8i8i8", next_word(0), next_word(0), next_word(0), next_word(0),
		next_word(0), next_word(0), next_word(0), next_word(0));
end

-- (count) -> string of that many random bytes
function random.bytes(count)
	local chunks = {};
	for i = 1, count // 64 + 1 do
		chunks[i] = eight_words();
	end
	return table.concat(chunks):sub(1, count);
end

-- (list) -> one of its elements
function random.element(list)
	return list[math.random(#list)];
end

-- Puts the elements of `list` into a random order.
function random.shuffle(list)
	for i = #list, 2, -1 do
		local j = math.random(i);
		list[i], list[j] = list[j], list[i];
	end
	return list;
end

return random;
