-- Formulas as MathML without the TeX that they are made from: a browser shows none of it, but the search's excerpts would.
function Math(formula)
  if not FORMAT:match("html") then
    return nil
  end
  local alone = pandoc.Pandoc({ pandoc.Plain({ formula }) })
  local html = pandoc.write(alone, "html", { html_math_method = "mathml" })
  return pandoc.RawInline("html", (html:gsub("<annotation.-</annotation>", "")))
end
