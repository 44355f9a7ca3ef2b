# create a key for a nightly job, which may only list models and expires in an hour
CREATED=$(curl -s $URL/api-keys -H "Authorization: Bearer $SESSION" -H 'Content-Type: application/json' \
  -d '{"name": "ci-nightly", "environment": "ci", "scopes": ["models:read"], "expires_in_s": 3600}')
ID=$(echo "$CREATED" | sed -E 's/.*"id":"([^"]+)".*/\1/')
KEY=$(echo "$CREATED" | sed -E 's/.*"token":"([^"]+)".*/\1/')

# 200, it lists models
curl -iw '\n' $URL/v1/models -H "Authorization: Bearer $KEY"

# 403, it may not run one
curl -iw '\n' $URL/v1/chat/completions -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' \
  -d '{"model": "parrot-1", "messages": [{"role": "user", "content": "Hello"}]}'

# 401, each with a hint: no key, no Bearer before it, a key that was cut off
curl -iw '\n' $URL/v1/models
curl -iw '\n' $URL/v1/models -H "Authorization: $KEY"
curl -iw '\n' $URL/v1/models -H "Authorization: Bearer ${KEY%???}"

# 204, revoke the key
curl -iw '\n' -X DELETE $URL/api-keys/$ID -H "Authorization: Bearer $SESSION"

# 401, revoked
curl -iw '\n' $URL/v1/models -H "Authorization: Bearer $KEY"
