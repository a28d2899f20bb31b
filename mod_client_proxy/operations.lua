-- What an operator sees: metrics.

local unmatched_answers = module:metric("counter", "unmatched_answers", "",
	"Answers that no request was waiting for, dropped", {}):with_labels();

local operations = {};

-- An answer was dropped: late, changed, doubled or made up.
function operations.count_unmatched()
	unmatched_answers:add(1);
end

return operations;
